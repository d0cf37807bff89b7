"""What data costs: training with each loader over the same step on a batch that stays the same.

They take turns, each for the same number of steps: what else the machine does then meets all of
them. Two cores that other people's work shares go at full or at half speed for seconds on end, so
the turns are short and many. A loader goes on where it was, so that what a new epoch costs it
counts as in a run. Between two turns no helper works any more: otherwise what a loader prepares
ahead would be at its neighbour's expense. So it would begin its turns with batches for nothing;
the first steps of each, as many as it has batches ready, are not timed.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.record import Outcome
from benchmarks.workbench import Workbench, assemble, enough_steps, installed, rest
from fasttrain.config import load
from fasttrain.data.loader import Loader, Pictures, ResolvedLoader

FIXED = "fixed batch"
LOADERS: tuple[ResolvedLoader, ...] = ("resident", "dali", "reference")
# Beside a GPU the reference loader is so slow that its turns would take all the time.
_ON_GPU: tuple[ResolvedLoader, ...] = ("resident", "dali")
_TURN = 0.6  # seconds, or two steps
_TURNS = (25, 100)  # of each: at least, and at most
_MEASURED = 60.0  # seconds of each that are enough


def measure(config: Path, overrides: tuple[str, ...], quick: bool) -> Outcome:
    """Train on batches of every loader, and on one batch again and again; images/s."""
    base = load(config, overrides)
    bench = assemble(base)
    pictures = bench.batch()
    steps = enough_steps(bench, pictures, _TURN)
    loaders = _loaders(bench)
    endless = {name: loader.batches(0, sys.maxsize) for name, loader in loaders.items()}
    sources: dict[str, Iterator[Pictures]] = {FIXED: itertools.repeat(pictures), **endless}
    runs: dict[str, list[float]] = {name: [] for name in sources}
    first, *others = loaders
    turns = (first, FIXED, *others)  # what is compared, next to each other
    ready = {FIXED: 1, **{name: loader.ahead + 1 for name, loader in loaders.items()}}
    for name, source in sources.items():  # helper processes start, code is generated
        bench.images_per_second(source, ready[name])
    for repetition in range(3 if quick else _turns(bench, pictures, steps)):
        for competitor in turns[:: 1 if repetition % 2 else -1]:
            rest()
            bench.images_per_second(sources[competitor], ready[competitor])
            runs[competitor].append(bench.images_per_second(sources[competitor], steps))
    for loader in loaders.values():
        loader.close()
    recipe, place = " ".join([config.stem, *overrides]), bench.runtime.device.type
    return Outcome(
        title=f"training {recipe} with each loader, {steps} steps, on {place}",
        unit="images/s",
        runs=runs,
        settings=base.model_dump(mode="json"),
        baseline=FIXED,
    )


def _loaders(bench: Workbench) -> dict[str, Loader]:
    """One of each kind that is worth its time."""
    base, loaders = bench.config, dict[str, Loader]()
    wanted = _ON_GPU if bench.runtime.device.type == "cuda" else LOADERS
    for name in installed(wanted, bench.runtime.device):
        data = base.data.model_copy(update={"loader": name})
        bench.config = base.model_copy(update={"data": data})
        loaders[name] = bench.loader()
    return loaders


def _turns(bench: Workbench, pictures: Pictures, steps: int) -> int:
    rate = bench.images_per_second(itertools.repeat(pictures), steps)
    seconds = steps * bench.config.data.batch_size / rate
    least, most = _TURNS
    return min(max(round(_MEASURED / seconds), least), most)
