"""What a recipe reaches, and how long it takes: whole runs over several seeds.

Each run is `fasttrain train` in a process of its own, so the wall time holds everything: start,
data, compilation, training, evaluation. Nothing is left out and no run is dropped.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import Outcome
from fasttrain.config import load


def measure(config: Path, seeds: int, quick: bool) -> Outcome:
    """Train `config` once for each seed from 0; `quick` trains one epoch."""
    overrides = ["train.epochs=1"] if quick else []
    settings = load(config, overrides)
    runs = [_train(config, [*overrides, f"seed={seed}"]) for seed in range(seeds)]
    names = ("test_accuracy", "wall_seconds", "train_seconds", "images_per_second")
    return Outcome(
        title=f"{config.name}, {settings.train.epochs} epochs, {seeds} seeds",
        unit="accuracy as a share, seconds, images/s",
        runs={name: [run[name] for run in runs] for name in names},
        settings=settings.model_dump(mode="json"),
        details=runs,
    )


def _train(config: Path, overrides: list[str]) -> dict[str, Any]:
    """Run one training; return its result and the wall time of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "fasttrain", "train", str(config), *overrides]
        start = time.perf_counter()
        subprocess.run([*command, "--run-dir", str(run)], check=True)  # noqa: S603 - our command
        seconds = time.perf_counter() - start
        result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return {**result, "wall_seconds": seconds}
