"""What a recipe reaches, and how long it takes: whole runs over several seeds.

The wall time holds everything: start, data, compilation, training, evaluation. Nothing is left
out and no run is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import Outcome
from benchmarks.training import train
from fasttrain.config import load


def measure(config: Path, overrides: Sequence[str], seeds: int, quick: bool, keep: Path) -> Outcome:
    """Train `config` once for each seed from 0; `quick` trains one epoch.

    The runs lie in `keep`; those that are there already are taken as they are, or finished.
    """
    changes = [*overrides, *(["train.epochs=1"] if quick else [])]
    settings = load(config, changes)
    runs = [
        train(config, [*changes, f"seed={seed}"], keep / f"seed{seed}") for seed in range(seeds)
    ]
    recipe = " ".join([config.name, *overrides])
    names = ("test_accuracy", "wall_seconds", "train_seconds", "images_per_second")
    return Outcome(
        title=f"{recipe}, {settings.train.epochs} epochs, {seeds} seeds",
        unit="accuracy as a share, seconds, images/s",
        runs={name: [run[name] for run in runs] for name in names},
        settings=settings.model_dump(mode="json"),
        details=runs,
    )
