"""Everything worth knowing of a machine with one GPU, in one call that fits in ten minutes.

An hour on such a machine is rare: the battery is a fixed list of commands, most telling first.
Each is a process of its own, none may take more than its share, and what is done is written down
after each, so that a call that was cut off, or a second one, goes on where the last one ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from fasttrain.errors import UserError
from fasttrain.files import write_text

_ROOT = Path(__file__).parent.parent
_SMALL, _FAST, _STRONG = (f"configs/{name}.yaml" for name in ("baseline", "speed94", "advanced"))
_WHOLE = "train.resize=[]"  # one step is measured, and all its pictures have one size
_GRACE = 20  # seconds that a run has to stop with a checkpoint


@dataclass(frozen=True)
class Task:
    """A command of the battery.

    Attributes:
        name: Under which it is written down.
        words: What follows `python -m`.
        share: Of the whole time; what is cut off begins again, or goes on, at the next call.
    """

    name: str
    words: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Ending:
    """How a task ended: its exit code, or None where its time was up."""

    code: int | None
    seconds: float


def _look(name: str, *words: str) -> tuple[str, ...]:
    """A benchmark's first look: a whole one takes longer than its share of ten minutes."""
    return ("benchmarks", name, *words, "--quick")


def tasks(keep: Path) -> tuple[Task, ...]:
    """The battery, in order; runs that take longer stay in `keep` and are gone on with."""

    def runs(config: str) -> tuple[str, ...]:
        folder = str(keep / Path(config).stem)
        return ("benchmarks", "accuracy", "--config", config, "--keep", folder)

    return (
        Task("parity", ("pytest", "-q", "-n", "2", "-m", "gpu", "tests"), 0.3),
        Task("loaders", _look("loaders", "--batch", "1024", "--workers", "16"), 0.15),
        Task("speed94", runs(_FAST), 0.25),
        Task("data of speed94", _look("train", "--config", _FAST, _WHOLE), 0.2),
        Task("step of speed94", _look("step", "--config", _FAST, _WHOLE), 0.25),
        Task("baseline", runs(_SMALL), 0.25),
        Task("step of advanced", _look("step", "--config", _STRONG), 0.25),
        Task("data of advanced", _look("train", "--config", _STRONG), 0.2),
        Task("data of baseline", _look("train", "--config", _SMALL), 0.2),
        Task("step of baseline", _look("step", "--config", _SMALL), 0.2),
        Task("overhead", _look("overhead", "--config", _SMALL), 0.2),
        Task("startup", _look("startup", "--config", _SMALL), 0.25),
        Task("augmentations", _look("augment"), 0.2),
        Task(
            "heavy loaders",
            _look("loaders", "--augment", "heavy", "--batch", "1024", "--workers", "16"),
            0.15,
        ),
        Task("large batches", _look("loaders", "--batch", "8192", "--workers", "16"), 0.15),
    )


def work(battery: Sequence[Task], seconds: float, keep: Path, records: Path) -> dict[str, Ending]:
    """Do what is not done yet, as far as the time allows.

    Args:
        battery: The tasks in order.
        seconds: For all of them together.
        keep: Where `battery.json` says what is done, and every task's output is kept.
        records: Where the benchmarks' records go.

    Returns:
        How every task that was ever begun has ended; those with code 0 are done.

    Raises:
        UserError: `battery.json` cannot be read.
    """
    keep.mkdir(parents=True, exist_ok=True)
    endings = _known(keep / "battery.json")
    over = time.monotonic() + seconds
    for task in battery:
        left = over - time.monotonic()
        if left <= 0:
            break
        if (known := endings.get(task.name)) and known.code == 0:
            continue
        endings[task.name] = _run(task, min(left, task.share * seconds), keep, records)
        written = {name: asdict(ending) for name, ending in endings.items()}
        write_text(keep / "battery.json", json.dumps(written, indent=1) + "\n")
    return endings


def _known(path: Path) -> dict[str, Ending]:
    if not path.exists():
        return {}
    try:
        return {name: Ending(**ending) for name, ending in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove it to begin again") from None


def _run(task: Task, seconds: float, keep: Path, records: Path) -> Ending:
    """Let a task run for so long; its output goes to a file of its own."""
    words = [*task.words, *(["--records", str(records)] if task.words[0] == "benchmarks" else [])]
    output = keep / f"{task.name.replace(' ', '-')}.txt"
    click.echo(f"{task.name}: at most {seconds:.0f} s, output in {output}")
    start = time.monotonic()
    with (
        output.open("ab") as file,
        subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", *words],
            cwd=_ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        code = _wait(process, seconds)
    click.echo(f"  {'its time was up' if code is None else f'exit code {code}'}")
    return Ending(code, round(time.monotonic() - start, 1))


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code, or None where the process and all that it has started had to be ended."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _kill(process.pid)
    return None


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
