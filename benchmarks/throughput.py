"""What data costs: training with each loader over the same step on a batch that stays the same.

They take turns, short ones and many, each for the same number of steps: what else the machine does
then meets all of them. A loader goes on where it was, so that what a new epoch costs it counts as
in a run. Between two turns no helper works any more: otherwise what a loader with processes of its
own prepares ahead would be at its neighbour's expense. So it begins its turns with some batches for
nothing, which is in its favour.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.record import Outcome
from benchmarks.workbench import assemble, enough_steps, installed, rest
from fasttrain.config import load
from fasttrain.data.loader import Pictures, ResolvedLoader

FIXED = "fixed batch"
LOADERS: tuple[ResolvedLoader, ...] = ("resident", "dali", "reference")
# Beside a GPU the reference loader is so slow that its turns would take all the time.
_ON_GPU: tuple[ResolvedLoader, ...] = ("resident", "dali")


def measure(config: Path, overrides: tuple[str, ...], quick: bool) -> Outcome:
    """Train on batches of every loader, and on one batch again and again; images/s."""
    repetitions, seconds = (3, 2.0) if quick else (25, 1.5)
    base = load(config, overrides)
    bench = assemble(base)
    pictures = bench.batch()
    steps = enough_steps(bench, pictures, seconds)
    loaders = {}
    wanted = _ON_GPU if bench.runtime.device.type == "cuda" else LOADERS
    for name in installed(wanted, bench.runtime.device):
        data = base.data.model_copy(update={"loader": name})
        bench.config = base.model_copy(update={"data": data})
        loaders[name] = bench.loader()
    sources: dict[str, Iterator[Pictures]] = {FIXED: itertools.repeat(pictures)}
    sources |= {str(name): loader.batches(0, sys.maxsize) for name, loader in loaders.items()}
    runs: dict[str, list[float]] = {name: [] for name in sources}
    for source in sources.values():  # helper processes start, code is generated
        bench.images_per_second(source, 2)
    for repetition in range(repetitions):
        for source_name, source in list(sources.items())[:: 1 if repetition % 2 else -1]:
            rest()
            runs[source_name].append(bench.images_per_second(source, steps))
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
