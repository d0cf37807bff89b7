"""Seconds from the start of a process to the end of its first training step.

`cold`: nothing was compiled before. `warm`: what the run before has left in the user's cache.
`moved`: a run that goes on where the only compiled code is the one in its run folder. The data set
is prepared in all three; each attempt is a new process, and they take turns. On a GPU, figures
leave the device a step later, so that the second step is what is waited for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import Outcome
from fasttrain.config import load
from fasttrain.data import sources
from fasttrain.data.store import cache_folder
from fasttrain.errors import UserError
from fasttrain.observe.folder import RunFolder

COLD, WARM, MOVED = "cold", "warm", "moved"
_PATIENCE = 600  # seconds for one start


def measure(config: Path, overrides: tuple[str, ...], quick: bool) -> Outcome:
    """Start runs and end them after their first step; seconds."""
    repetitions = 1 if quick else 5
    every_step = ["train.log_every=1steps", "checkpoint.every=1steps"]
    settings = load(config, [*overrides, *every_step])
    sources.open_dataset(settings.data)  # so that every start finds it prepared
    runs: dict[str, list[float]] = {COLD: [], WARM: [], MOVED: []}
    with tempfile.TemporaryDirectory() as name:
        for repetition in range(repetitions):
            folder = Path(name) / str(repetition)
            caches = {way: _empty_cache(folder / f"{way}-cache") for way in (COLD, MOVED)}
            command = _command(config, [*overrides, *every_step])
            runs[COLD].append(_start(command, folder / COLD, caches[COLD]))
            runs[WARM].append(_start(command, folder / WARM, caches[COLD]))
            runs[MOVED].append(_start([*command, "--resume"], folder / COLD, caches[MOVED]))
    return Outcome(
        title=f"start to first step of {' '.join([config.stem, *overrides])}",
        unit="seconds",
        runs=runs,
        settings=settings.model_dump(mode="json"),
        baseline=COLD,
    )


def _empty_cache(path: Path) -> Path:
    """A user's cache folder that holds the prepared data sets and nothing compiled."""
    path.mkdir(parents=True)
    for kept in cache_folder().iterdir():
        if kept.name != "compiled":
            (path / kept.name).symlink_to(kept)
    return path


def _command(config: Path, overrides: list[str]) -> list[str]:
    return [sys.executable, "-m", "fasttrain", "train", str(config), *overrides]


def _start(command: list[str], folder: Path, cache: Path) -> float:
    """Start a run; the seconds until its journal holds one more step. Then the run is stopped."""
    journal = RunFolder(folder).journal
    known = journal.read_text().count("\n") if journal.exists() else 0
    environment = {**os.environ, "FASTTRAIN_CACHE": str(cache)}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)  # would take the caches' place
    start = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - our own module
        [*command, "--run-dir", str(folder)], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        while not _has_grown(journal, known):
            if process.poll() is not None or time.perf_counter() - start > _PATIENCE:
                process.kill()
                raise UserError(f"{folder}: the run did not come to its first step")
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.send_signal(signal.SIGTERM)
        process.wait()
    return seconds


def _has_grown(journal: Path, known: int) -> bool:
    lines = journal.read_text().splitlines() if journal.exists() else []
    steps = [line for line in lines[known:] if json.loads(line)["kind"] == "train"]
    return bool(steps)
