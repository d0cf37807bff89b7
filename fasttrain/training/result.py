"""What a run came to."""

from __future__ import annotations

import resource
from typing import Any

from fasttrain.training.clock import Clock
from fasttrain.training.evaluate import Score


def figures(clock: Clock) -> dict[str, Any]:
    """Where the time went; every figure says what it leaves out (see `Clock`)."""
    return {
        "images_per_second": clock.images_per_second,
        "data_stall": clock.data_stall,
        "train_seconds": clock.train_seconds,
        "compile_seconds": clock.seconds["compile"],
        "evaluate_seconds": clock.seconds["evaluate"],
        "checkpoint_seconds": clock.seconds["checkpoint"],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def scores(test: Score, validation: Score | None) -> dict[str, Any]:
    """How good the last weights are."""
    return {
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_count": test.count,
        "val_accuracy": validation.accuracy if validation else None,
        "val_loss": validation.loss if validation else None,
    }
