"""What checkpoints cost: whole runs with one every 100 steps, and with none but the last.

The runs take turns. Compared is the time of training and of checkpoints together; start,
compilation and evaluation are the same for both and left out.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.record import Outcome
from benchmarks.training import train
from fasttrain.config import load

EVERY = "every 100 steps"
NONE = "at the end"


def measure(config: Path, quick: bool) -> Outcome:
    """Train `config` for one epoch, several times each way."""
    repetitions = 1 if quick else 7
    common = ["train.epochs=1", "data.validation=0"]
    ways = {NONE: "checkpoint.every=100%", EVERY: "checkpoint.every=100steps"}
    runs: dict[str, list[float]] = {name: [] for name in ways}
    details = []
    for repetition in range(repetitions):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                run = train(config, [*common, way], Path(folder) / "run")
            details.append({"way": name, "repetition": repetition, **run})
            runs[name].append(run["train_seconds"] + run["checkpoint_seconds"])
    return Outcome(
        title=f"checkpoints of {config.name}, one epoch",
        unit="seconds of training and checkpoints",
        runs=runs,
        baseline=NONE,
        settings=load(config, common).model_dump(mode="json"),
        details=details,
    )
