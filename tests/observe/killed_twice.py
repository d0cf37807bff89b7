"""Trains a small run that is killed with -9 twice, with W&B offline beside it.

python tests/observe/killed_twice.py RUN_FOLDER
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from fasttrain.config import Config
from fasttrain.data import sources
from fasttrain.data.loader import Pictures
from fasttrain.data.shapes import ShapesSource
from fasttrain.training.run import run
from fasttrain.training.step import TrainingStep

CONFIG = Config.model_validate(
    {
        "data": {"dataset": "shapes", "batch_size": 16, "validation": 20},
        "model": {"widths": [8, 8]},
        "train": {"epochs": 4, "device": "cpu", "precision": "fp32", "compile": False,
                  "deterministic": True, "log_every": "1steps"},
        "checkpoint": {"every": "3steps"},
        "track": {"wandb": "offline", "report": False},
    }
)  # fmt: skip


def attempt(folder: Path, last: int | None) -> None:
    """Go on with the run in a process of its own; kill it before step number `last`."""
    child = os.fork()
    if child == 0:
        whole = TrainingStep.__call__

        def step(self: TrainingStep, at: int, batch: Pictures, factor: float) -> None:
            if at == last:
                os.kill(os.getpid(), signal.SIGKILL)
            whole(self, at, batch, factor)

        TrainingStep.__call__ = step  # type: ignore[method-assign]
        run(CONFIG, folder, resume=True, console=Console(quiet=True))
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    sources.ShapesSource = lambda: ShapesSource(train=120, test=30)  # type: ignore[misc,assignment]
    for last in (8, 17, None):
        attempt(Path(sys.argv[1]), last)
