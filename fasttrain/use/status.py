"""How a run stands, from its folder alone, on whatever machine that folder can be seen."""

from __future__ import annotations

import fcntl
import platform
import shlex
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fasttrain.config import Config
from fasttrain.files import read_json
from fasttrain.observe import journal
from fasttrain.observe.folder import RunFolder, open_run
from fasttrain.observe.journal import Record

Standing = Literal["complete", "running", "stalled", "stopped", "crashed", "diverged", "refused"]

# What a run says of itself when it has ended, and what is said of it then.
_ENDED: dict[str | None, Standing] = {
    "complete": "complete",
    "stopped": "stopped",
    "diverged": "diverged",
    "refused": "refused",
    "failed": "crashed",
}
_UNWATCHED = 1800.0  # seconds of silence after which a run without a watchdog is given up


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Times are in seconds, shares from 0 to 1; what is not known is `None`.

    Attributes:
        run: The folder.
        state: `running` shows signs of life; `stalled` has shown none for half the watchdog's
            time; `crashed` has ended without a word or by a bug; the others say it themselves.
        step: Training steps done.
        steps: ... of so many.
        epoch: The epoch that the last step belongs to.
        epochs: ... of so many.
        seconds_left: As the last rate has it; evaluations and checkpoints come on top.
        images_per_second: The last rate.
        data_stall: Share of the training time spent waiting for data, lately.
        validation_accuracy: The last one.
        test_accuracy: Of a complete run.
        checkpoint_step: The newest checkpoint's.
        checkpoint_age: Seconds since it was written.
        silent: Seconds since the last sign of life.
        restarts: How often the run went on after it was cut off.
        host: Where it runs, or ran last.
        pid: Likewise.
        outcome: What the run says of itself.
        message: Likewise.
        next: What to type, or to do.
    """

    run: str
    state: Standing
    step: int
    steps: int | None
    epoch: int
    epochs: int
    seconds_left: float | None
    images_per_second: float | None
    data_stall: float | None
    validation_accuracy: float | None
    test_accuracy: float | None
    checkpoint_step: int | None
    checkpoint_age: float | None
    silent: float | None
    restarts: int | None
    host: str | None
    pid: int | None
    outcome: str | None
    message: str
    next: str


def runs_in(path: Path) -> list[Path]:
    """The runs in the folder `path`, the one that was started last at the end; else `path`."""
    with suppress(OSError):  # `status` says what is wrong
        if not RunFolder(path).config.exists():
            started = {file.parent: file.stat().st_mtime for file in path.glob("*/config.yaml")}
            return sorted(started, key=lambda run: started[run]) or [path]
    return [path]


def status(path: Path) -> Status:
    """Look at a run.

    Raises:
        UserError: there is none.
    """
    folder, config = open_run(path)
    beat = read_json(folder.heartbeat) or {}
    about = read_json(folder.outcome) or {}
    result = read_json(folder.result) or {}
    records = journal.read(folder.journal)
    train = [record for record in records if record["kind"] == "train"]
    scored = [record for record in records if record.get("split") == "validation"]
    last: Record = train[-1] if train else {}
    silent = _silence(folder, beat)
    outcome = "complete" if result else about.get("outcome")
    state = _state(folder, config, outcome, beat, silent)
    lives = state in ("running", "stalled")
    saved, written = folder.newest_checkpoint() or (None, None)
    step = max(int(beat.get("step", 0)) if lives else 0, int(last.get("step", 0)), saved or 0)
    steps = result.get("steps") or beat.get("steps") or _count_steps(config, train)
    rate = last.get("images_per_second")
    left = (steps - step) * config.data.batch_size / rate if lives and steps and rate else None
    return Status(
        run=str(path),
        state=state,
        step=step,
        steps=steps,
        epoch=max(int(beat.get("epoch", 1)) if lives else 1, int(last.get("epoch", 1))),
        epochs=config.train.epochs,
        seconds_left=left,
        images_per_second=rate,
        data_stall=last.get("data_stall"),
        validation_accuracy=scored[-1]["accuracy"] if scored else None,
        test_accuracy=result.get("test_accuracy"),
        checkpoint_step=saved,
        checkpoint_age=None if written is None else max(0.0, time.time() - written),
        silent=silent,
        restarts=beat.get("restarts"),
        host=beat.get("host"),
        pid=beat.get("pid"),
        outcome=about.get("outcome"),
        message=str(about.get("message", "")),
        next=_next(folder, state),
    )


def _silence(folder: RunFolder, beat: dict[str, Any]) -> float | None:
    """Seconds since the last sign of life.

    A run that goes on has written that it does before its heart beats; one without a heartbeat
    writes its journal.
    """
    written = [folder.outcome] if beat.get("time") else [folder.journal, folder.outcome]
    times = [file.stat().st_mtime for file in written if file.exists()]
    alive = max([*times, beat.get("time") or 0.0]) or None
    return None if alive is None else max(0.0, time.time() - alive)


def _state(
    folder: RunFolder,
    config: Config,
    outcome: str | None,
    beat: dict[str, Any],
    silent: float | None,
) -> Standing:
    if outcome in _ENDED:
        return _ENDED[outcome]
    held = _is_held(folder)
    if held is False and beat.get("host") == platform.node():
        return "crashed"
    watchdog = config.train.watchdog
    patience = 60 * watchdog.value if watchdog else _UNWATCHED
    if silent is None or (silent > patience and not held):
        return "crashed"
    # A lock that is seen from here proves that the process is there, however silent.
    return "stalled" if silent > patience / 2 else "running"


def _is_held(folder: RunFolder) -> bool | None:
    """Whether a process works in the folder; `None` where that cannot be seen.

    Another machine's lock is seen on some shared file systems only: that none is seen proves
    nothing but of this machine's own processes.
    """
    try:
        with folder.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _count_steps(config: Config, train: list[Record]) -> int | None:
    """All steps of a run: known from its journal once the first epoch is over."""
    first = [record["step"] for record in train if record["epoch"] == 1]
    over = bool(train) and train[-1]["epoch"] > 1
    return max(first) * config.train.epochs if first and over else None


def _next(folder: RunFolder, state: Standing) -> str:
    path = str(folder.path)
    words = ["fasttrain", "train", str(folder.config), "--run-dir", path, "--resume"]
    again = shlex.join(words)
    stacks = [
        file.name for file in sorted(folder.path.glob("stacks-rank*.txt")) if file.stat().st_size
    ]
    hung = f" ({', '.join(stacks)} say where it hung)" if stacks else ""
    return {
        "complete": shlex.join(["fasttrain", "evaluate", path]),
        "running": f"nothing; later {shlex.join(['fasttrain', 'status', path])}",
        "stalled": "wait until train.watchdog ends it, or end it, then " + again,
        "stopped": again,
        "crashed": again + hung,
        "diverged": "a lower rate or train.on_divergence=rollback, in a new run",
        "refused": f"mend what the message names, then {again}",
    }[state]
