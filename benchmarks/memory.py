"""What it brings that a run keeps the memory it frees (`fasttrain.memory`).

Training with and without: each run is a process of its own, as what a process once kept stays with
it; they take turns. Without, glibc works as it comes: a variable that says what it does anyway
tells fasttrain that the user has decided.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.record import Outcome
from benchmarks.training import train
from fasttrain.config import load

PLAIN, KEPT = "as glibc comes", "freed memory kept"
_ENVIRONMENTS = {PLAIN: {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}, KEPT: {}}


def measure(config: Path, overrides: tuple[str, ...], quick: bool, keep: Path) -> Outcome:
    """Train one epoch again and again; images/s of training, without compiling.

    The runs lie in `keep`.
    """
    repetitions = 1 if quick else 3
    words = [*overrides, "train.epochs=1"]
    runs: dict[str, list[float]] = {name: [] for name in _ENVIRONMENTS}
    for repetition in range(repetitions):
        for place, name in list(enumerate(_ENVIRONMENTS))[:: -1 if repetition % 2 else 1]:
            folder = keep / f"{place}-{repetition}"
            found = train(config, words, folder, _ENVIRONMENTS[name])
            runs[name].append(found["images_per_second"])
    return Outcome(
        title=f"an epoch of {' '.join([config.stem, *overrides])}",
        unit="images/s",
        runs=runs,
        settings=load(config, words).model_dump(mode="json"),
        baseline=PLAIN,
    )
