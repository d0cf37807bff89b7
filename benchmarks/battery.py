"""Everything worth knowing of a machine with one GPU, in one call that can be repeated.

The battery is a fixed list of commands, most telling first. Each is a process of its own, none may
take more than its minutes, and what is done is written down after each, so that a call that was
cut off, or a second one, goes on where the last one ended.

A whole battery should take an H100 about three hours. A quick one makes do with first looks, most
of which fit into ten minutes.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from fasttrain.config import load
from fasttrain.errors import UserError
from fasttrain.files import write_text
from fasttrain.launcher import usable_cores

_ROOT = Path(__file__).resolve().parent.parent
_PROGRAMS = str(Path(sys.executable).parent)  # with the `python` that rivals are to run in
_SMALL, _MIDDLE, _FAST, _FINE, _STRONG = (
    f"configs/{name}.yaml"
    for name in ("baseline", "intermediate", "speed94", "speed96", "advanced")
)
_WHOLE = "train.resize=[]"  # one step is measured, and all its pictures have one size
_RESNET = "model={family: wide_resnet, depth: 16, widen: 8}"
_WORKERS = ("--workers", str(min(usable_cores(), 16)))
# Batches of 128 are small for a large GPU. Untried: four times that, the rate by the square root,
# an average over as many pictures.
_LARGER = ("name=advanced-512", "data.batch_size=512", "optim.lr=2e-3", "train.ema={decay: 0.996}")
_TESTS = ("pytest", "-q", "-n", "2", "-m", "gpu", "tests")
_FEWER_EPOCHS = ("--variant", "ten=train.epochs=10", "--variant", "nine=train.epochs=9")
_GRACE = 20  # seconds that a run has to stop with a checkpoint
# Those that `benchmarks.speedrun` knows, by the recipe that aims as high.
_SPEEDRUNS = {
    _FAST: ("airbench94_muon.py", "cifar10_speedrun.py", "e1.py"),
    _FINE: ("airbench96_faster.py",),
}


@dataclass(frozen=True)
class Task:
    """A command of the battery.

    Attributes:
        name: Under which it is written down.
        words: What follows `python -m`.
        minutes: At most; what is cut off begins again, or goes on, at the next call.
    """

    name: str
    words: tuple[str, ...]
    minutes: float


@dataclass(frozen=True)
class Ending:
    """How a task ended: its exit code, or None where its time was up."""

    code: int | None
    seconds: float


def tasks(keep: Path, quick: bool = False, speedruns: Path | None = None) -> tuple[Task, ...]:
    """The battery, in order.

    Args:
        keep: Where whole runs stay, which are gone on with.
        quick: First looks in place of whole benchmarks, and no long runs.
        speedruns: A folder with clones of public ones, to take turns with ours.

    Raises:
        UserError: there is none in that folder.
    """
    rivals = find_speedruns(speedruns) if speedruns else {}
    return _looks(keep) if quick else _whole(keep, rivals)


def _looks(keep: Path) -> tuple[Task, ...]:
    """First looks; with whole runs of what takes less than a minute on a GPU."""

    def look(name: str, minutes: float, *words: str) -> Task:
        return Task(f"{name}, a first look", ("benchmarks", *words, "--quick"), minutes)

    return (
        Task("tests", _TESTS, 3),
        look("loaders", 1.5, "loaders", "--batch", "1024", *_WORKERS),
        _runs(_FAST, keep, 2.5),
        look("data of speed94", 2, "train", "--config", _FAST, _WHOLE),
        look("step of speed94", 2.5, "step", "--config", _FAST, _WHOLE),
        _runs(_SMALL, keep, 2.5),
        look("step of advanced", 2.5, "step", "--config", _STRONG),
        look("data of advanced", 2, "train", "--config", _STRONG),
        look("data of baseline", 2, "train", "--config", _SMALL),
        look("step of baseline", 2, "step", "--config", _SMALL),
        look("overhead", 2, "overhead", "--config", _SMALL),
        look("startup", 2.5, "startup", "--config", _SMALL),
        look("augmentations", 2, "augment"),
        look("heavy loaders", 1.5, "loaders", "--augment", "heavy", "--batch", "1024", *_WORKERS),
        look("large batches", 1.5, "loaders", "--batch", "8192", *_WORKERS),
    )


def _whole(keep: Path, rivals: Mapping[str, Path]) -> tuple[Task, ...]:
    """Everything, as often as it takes to be quoted."""

    def whole(name: str, minutes: float, *words: str) -> Task:
        return Task(name, ("benchmarks", *words), minutes)

    return (
        Task("tests", _TESTS, 15),
        _turns(_FAST, rivals, 30, "--seeds", "20", *_FEWER_EPOCHS),
        whole("step of advanced", 10, "step", "--config", _STRONG),
        whole("step of a wide ResNet", 10, "step", "--config", _STRONG, _RESNET),
        whole("data of advanced", 10, "train", "--config", _STRONG),
        whole("step of speed94", 10, "step", "--config", _FAST, _WHOLE),
        whole("data of speed94", 10, "train", "--config", _FAST, _WHOLE),
        *(
            whole(
                f"loaders, {strength}, {batch}", 10,
                "loaders", "--augment", strength, "--batch", batch, *_WORKERS,
            )
            for strength in ("light", "heavy")
            for batch in ("256", "1024", "8192")
        ),
        _turns(_FINE, rivals, 45, "--seeds", "10"),
        _runs(_STRONG, keep, 60),
        _runs(_STRONG, keep, 40, *_LARGER),
        _runs(_SMALL, keep, 10),
        _runs(_MIDDLE, keep, 20),
        whole("overhead", 10, "overhead", "--config", _SMALL),
        whole("startup of baseline", 15, "startup", "--config", _SMALL),
        whole("startup of speed94", 20, "startup", "--config", _FAST),
        whole("checkpoints", 10, "checkpoint", "--config", _SMALL),
        whole("augmentations", 15, "augment"),
    )  # fmt: skip


def _runs(config: str, keep: Path, minutes: float, *overrides: str) -> Task:
    """Three whole runs of a recipe."""
    name = load(_ROOT / config, overrides).name
    words = ("accuracy", "--config", config, "--keep", _written(keep / name), *overrides)
    return Task(name, ("benchmarks", *words), minutes)


def _turns(config: str, rivals: Mapping[str, Path], minutes: float, *options: str) -> Task:
    """A recipe in turn with those of the speedruns that aim as high."""
    words = list(options)
    for name in _SPEEDRUNS[config]:
        if name in rivals:
            command = shlex.join(["python", "-m", "benchmarks.speedrun", _written(rivals[name])])
            words += ["--rival", f"{Path(name).stem}={command}"]
    name = f"{Path(config).stem} in turn"
    return Task(name, ("benchmarks", "turns", "--config", config, *words), minutes)


def find_speedruns(folder: Path) -> dict[str, Path]:
    """The public speedruns that lie in a folder, by name; of two, what lies less deep.

    Raises:
        UserError: there is none.
    """
    found: dict[str, Path] = {}
    for name in itertools.chain(*_SPEEDRUNS.values()):
        there = sorted(folder.rglob(name), key=lambda path: (len(path.parts), path))
        if there:
            found[name] = there[0]
    if not found:
        names = ", ".join(itertools.chain(*_SPEEDRUNS.values()))
        raise UserError(f"--speedruns: {folder} holds none of {names}; clone their repositories")
    return found


def _written(path: Path) -> str:
    """A path as a record may hold it: from the project's folder, where it lies in that."""
    path = path.resolve()
    return str(path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path)


def work(battery: Sequence[Task], seconds: float, keep: Path, records: Path) -> dict[str, Ending]:
    """Do what is not done yet, as far as the time allows.

    Args:
        battery: The tasks in order.
        seconds: For all of them together; may be infinite.
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
        endings[task.name] = _run(task, min(left, 60 * task.minutes), keep, records)
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
    words = [*task.words]
    if task.words[0] == "benchmarks":
        words += ["--records", _written(records)]
    output = keep / ("-".join(re.findall(r"\w+", task.name)) + ".txt")
    click.echo(f"{task.name}: at most {seconds:.0f} s, output in {output}")
    start = time.monotonic()
    with (
        output.open("ab") as file,
        subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", *words],
            cwd=_ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PATH": os.pathsep.join([_PROGRAMS, os.environ.get("PATH", "")])},
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
