"""What a recipe reaches, and how long it takes: whole runs over several seeds.

The wall time holds everything: start, data, compilation, training, evaluation. Nothing is left
out and no run is dropped. A rival trains in turn with ours, seed by seed, first every other time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import rival
from benchmarks.record import Outcome
from benchmarks.training import train
from fasttrain.config import load

_NAMES = ("test_accuracy", "wall_seconds", "train_seconds", "images_per_second")
_UNITS = {"accuracy": "share", "seconds": "seconds", "second": "images/s"}  # by a name's end


def measure(
    config: Path,
    overrides: Sequence[str],
    seeds: int,
    quick: bool,
    keep: Path,
    against: str | None = None,
) -> Outcome:
    """Train `config` once for each seed from 0; `quick` trains one epoch.

    The runs lie in `keep`; those that are there already are taken as they are, or finished.

    Args:
        config: The recipe.
        overrides: What is changed in it.
        seeds: How many.
        quick: One epoch.
        keep: A folder.
        against: The command of a rival; see `rival.run`.
    """
    changes = [*overrides, *(["train.epochs=1"] if quick else [])]
    settings = load(config, changes)
    ours, theirs = [], []
    for seed in range(seeds):
        other = keep / f"rival-seed{seed}.json"
        if against and seed % 2:
            theirs.append(rival.run(against, seed, other))
        ours.append(train(config, [*changes, f"seed={seed}"], keep / f"seed{seed}"))
        if against and not seed % 2:
            theirs.append(rival.run(against, seed, other))
    runs = {name: [run[name] for run in ours] for name in _NAMES}
    runs |= _compared(ours, theirs, settings.data.batch_size)
    recipe, many = " ".join([settings.name, *overrides]), "s" * (seeds > 1)
    return Outcome(
        title=f"{recipe}, {settings.train.epochs} epochs, {seeds} seed{many}",
        unit="accuracy as a share, seconds, images/s",
        runs=runs,
        settings=settings.model_dump(mode="json"),
        details=[*ours, *theirs],
        units={name: _UNITS.get(name.split("_")[-1], "ours over theirs") for name in runs},
    )


def _compared(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], batch: int
) -> dict[str, list[float]]:
    """The rival's figures, and our time over its time, pair by pair.

    Its own clock is held against all our process takes but compilation, which clocks of its kind
    leave out. Our first step counts as part of compilation: a later step's time is put back.
    """
    if not theirs:
        return {}
    clock = [
        run["wall_seconds"] - run["compile_seconds"] + batch / run["images_per_second"]
        for run in ours
    ]
    rival = {
        name: [run[name] for run in theirs] for name in ("accuracy", "seconds", "wall_seconds")
    }
    walls = zip(ours, rival["wall_seconds"], strict=True)
    return {
        "clock_seconds": clock,
        **{f"rival_{name}": figures for name, figures in rival.items()},
        "clock_over_clock": [a / b for a, b in zip(clock, rival["seconds"], strict=True)],
        "wall_over_wall": [a["wall_seconds"] / b for a, b in walls],
    }
