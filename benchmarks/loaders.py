"""Images/s of fasttrain's loaders beside those that most projects use.

Everyone augments and normalises the same 50,000 pictures of 32x32 into batches on the device. The
competitors take turns, each for the same time; helper processes and compiled code are warm, and
what helpers had prepared ahead is used up, before a clock starts. As in a run, memory that is
freed stays in the process, for all of them. The pictures are noise: their content costs nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.competitors import MEAN, STD, Strength, competitors
from benchmarks.record import Outcome
from benchmarks.workbench import installed
from fasttrain import memory
from fasttrain.config import Augmentation, Crop, Cutout, Flip, TrivialAugment
from fasttrain.data.augment import Transform
from fasttrain.data.loader import Loader, ResolvedLoader, make_loader
from fasttrain.data.plan import Shard, TrainingPlan
from fasttrain.data.store import Split

PICTURES, BATCH, WORKERS = 50_000, 512, 2
AUGMENT: dict[Strength, tuple[Augmentation, ...]] = {
    "light": (Crop(padding=4), Flip()),
    "heavy": (TrivialAugment(), Crop(padding=4), Flip(), Cutout(size=8)),
}
OURS: tuple[ResolvedLoader, ...] = ("dali", "resident", "reference")
_AHEAD = 2  # batches that a DataLoader lets each helper prepare

Stream = Callable[[], Iterator[Any]]  # starts to deliver batches, without end


def measure(
    quick: bool,
    strength: Strength = "light",
    batch: int = BATCH,
    workers: tuple[int, ...] = (WORKERS,),
) -> Outcome:
    """Let every loader deliver batches in turn, several times over.

    Args:
        quick: A first look.
        strength: How pictures are augmented.
        batch: Pictures in a batch.
        workers: Numbers of helper processes that the competitors are tried with. The first one is
            what all are compared with, and what our own may use.
    """
    repetitions, seconds = (3, 0.5) if quick else (7, 2.0)
    generator = np.random.default_rng(0)
    split = Split(
        generator.integers(0, 256, (PICTURES, 32, 32, 3), dtype=np.uint8),
        generator.integers(0, 10, PICTURES, dtype=np.int64),
    )
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    memory.keep_freed()
    loaders = _ours(split, AUGMENT[strength], batch, workers[0], device)
    streams = {f"fasttrain {name}": planned(loader) for name, loader in loaders.items()}
    streams |= dict(competitors(split, strength, batch, workers, device))
    runs: dict[str, list[float]] = {name: [] for name in streams}
    ahead = max(_AHEAD * max(workers), *(loader.ahead for loader in loaders.values()))
    for _ in range(repetitions):
        for name, stream in streams.items():
            runs[name].append(batch * batches_per_second(stream, seconds, device, ahead + 1))
    return Outcome(
        title=f"loaders on {device.type}: {strength} augmentation, batches of {batch}",
        unit="images/s",
        runs=runs,
        baseline=f"torchvision v2, {workers[0]} workers",
        settings={
            "pictures": PICTURES,
            "augmentation": strength,
            "batch": batch,
            "workers": workers,
            "seconds a repetition": seconds,
            "repetitions": repetitions,
            "threads": torch.get_num_threads(),
            "device": device.type,
        },
    )


def _ours(
    split: Split,
    augment: tuple[Augmentation, ...],
    batch: int,
    workers: int,
    device: torch.device,
) -> dict[ResolvedLoader, Loader]:
    plan = TrainingPlan(np.arange(PICTURES), batch, 0, augment, (32, 32))
    transform = Transform(augment, MEAN, STD)
    return {
        name: make_loader(name, split, plan, Shard(), transform, device, workers=workers)
        for name in installed(OURS, device)
    }


def planned(loader: Loader) -> Stream:
    """The batches of a fasttrain loader, from the first and without end."""
    return lambda: loader.batches(0, sys.maxsize)


def batches_per_second(stream: Stream, seconds: float, device: torch.device, warm_up: int) -> float:
    """Let batches come for some seconds, after `warm_up` of them that are not timed.

    As many are timed at least: they may come in groups.
    """
    batches = stream()
    for _ in range(warm_up):
        next(batches)
    _wait(device)
    count, start = 0, time.perf_counter()
    while count < warm_up or time.perf_counter() < start + seconds:
        next(batches)
        count += 1
    _wait(device)
    return count / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
