"""What a run came to."""

from __future__ import annotations

import resource
from typing import Any

import torch

from fasttrain.answers import Answers, interval
from fasttrain.observe.journal import Record
from fasttrain.training.clock import Clock


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


def forget_gpu_memory(device: torch.device) -> None:
    """Let `of_gpu` know nothing of runs that this process made before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def of_gpu(device: torch.device) -> dict[str, Any]:
    """The most that torch reserved on the main rank's GPU, which leaves DALI's own buffers out.

    Nothing of a CPU.
    """
    if device.type != "cuda":
        return {}
    return {"peak_gpu_memory_bytes": torch.cuda.max_memory_reserved(device)}


def score(answers: Answers, classes: int) -> dict[str, Any]:
    """What an evaluation found, for the journal; `top5` where there are more than five classes."""
    top = {"top5": answers.top(5)} if classes > 5 else {}
    return {
        "loss": answers.mean_loss,
        "accuracy": answers.accuracy,
        **top,
        "count": answers.count,
        "per_class": answers.per_class(classes),
    }


def scores(test: Record, validation: Record | None) -> dict[str, Any]:
    """How good the last weights are."""
    return {
        "test_accuracy": test["accuracy"],
        "test_interval": interval(test["accuracy"], test["count"]),
        "test_top5": test.get("top5"),
        "test_loss": test["loss"],
        "test_count": test["count"],
        "val_accuracy": validation["accuracy"] if validation else None,
        "val_loss": validation["loss"] if validation else None,
    }
