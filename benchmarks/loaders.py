"""Images/s of fasttrain's loaders beside the torchvision DataLoader that most projects use.

Everyone pads, crops, flips and normalises the same 50,000 pictures of 32x32 into batches on the
device. The competitors take turns, each for the same time; helper processes and compiled code are
warm before a clock starts. The pictures are noise: their content costs nothing.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.transforms import v2

from benchmarks.record import Outcome
from fasttrain.config import Augmentation, Crop, Flip
from fasttrain.data.augment import Transform
from fasttrain.data.loader import Loader, ResolvedLoader, make_loader
from fasttrain.data.plan import Shard, TrainingPlan
from fasttrain.data.store import Split

PICTURES, BATCH, WORKERS, WARM_UP = 50_000, 512, 2, 8
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
AUGMENT: tuple[Augmentation, ...] = (Crop(padding=4), Flip())
OURS: tuple[ResolvedLoader, ...] = ("dali", "resident", "reference")

Stream = Callable[[], Iterator[Any]]  # starts to deliver batches, without end


def measure(quick: bool) -> Outcome:
    """Let every loader deliver batches in turn, several times over."""
    repetitions, seconds = (3, 0.5) if quick else (7, 2.0)
    generator = np.random.default_rng(0)
    split = Split(
        generator.integers(0, 256, (PICTURES, 32, 32, 3), dtype=np.uint8),
        generator.integers(0, 10, PICTURES, dtype=np.int64),
    )
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    streams = _streams(split, device)
    runs: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(repetitions):
        for name, stream in streams.items():
            runs[name].append(images_per_second(stream, seconds, device))
    return Outcome(
        title=f"loaders on {device.type}: crop, flip, normalise; {WORKERS} workers or threads",
        unit="images/s",
        runs=runs,
        baseline="torchvision v2",
        settings={
            "pictures": PICTURES,
            "batch": BATCH,
            "workers": WORKERS,
            "seconds a repetition": seconds,
            "repetitions": repetitions,
            "threads": torch.get_num_threads(),
            "device": device.type,
        },
    )


def _streams(split: Split, device: torch.device) -> dict[str, Stream]:
    plan = TrainingPlan(np.arange(PICTURES), BATCH, 0, AUGMENT, (32, 32))
    transform = Transform(AUGMENT, MEAN, STD)
    streams: dict[str, Stream] = {}
    for name in OURS:
        loader = make_loader(name, split, plan, Shard(), transform, device, workers=WORKERS)
        streams[f"fasttrain {name}"] = planned(loader)
    for version, dataset in (("v1", _pil_pictures(split)), ("v2", _tensor_pictures(split))):
        loader_of = DataLoader(
            dataset, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True,
            persistent_workers=True, pin_memory=device.type == "cuda",
        )  # fmt: skip
        streams[f"torchvision {version}"] = _endless(loader_of, device)
    return streams


def planned(loader: Loader) -> Stream:
    """The batches of a fasttrain loader, from the first and without end."""
    return lambda: loader.batches(0, sys.maxsize)


def _endless(loader: Iterable[list[torch.Tensor]], device: torch.device) -> Stream:
    def stream() -> Iterator[Any]:
        for images, labels in itertools.chain.from_iterable(itertools.repeat(loader)):
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    return stream


def images_per_second(
    stream: Stream, seconds: float, device: torch.device, warm_up: int = WARM_UP
) -> float:
    """Let batches come for some seconds, after `warm_up` of them that are not timed."""
    batches = stream()
    for _ in range(warm_up):
        next(batches)
    _wait(device)
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        next(batches)
        count += 1
    _wait(device)
    return count * BATCH / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Pictures(Dataset[tuple[Any, int]]):
    """Pictures through a transform, one at a time."""

    def __init__(self, split: Split, read: Callable[[Any], Any], transform: Any) -> None:
        self._split, self._read, self._transform = split, read, transform

    def __len__(self) -> int:
        return len(self._split.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = self._read(self._split.images[index])
        return self._transform(picture), int(self._split.labels[index])


def _shares(values: tuple[float, float, float]) -> list[float]:
    return [value / 255 for value in values]


def _pil_pictures(split: Split) -> _Pictures:
    """The transforms of countless CIFAR-10 scripts, on PIL pictures."""
    steps = [v1.RandomCrop(32, padding=4), v1.RandomHorizontalFlip(), v1.ToTensor()]
    return _Pictures(
        split, Image.fromarray, v1.Compose([*steps, v1.Normalize(_shares(MEAN), _shares(STD))])
    )


def _tensor_pictures(split: Split) -> _Pictures:
    """What torchvision recommends today: its second transforms, on uint8 tensors."""
    steps = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]
    floats = v2.ToDtype(torch.float32, scale=True)
    return _Pictures(
        split,
        lambda image: torch.from_numpy(image).permute(2, 0, 1),
        v2.Compose([*steps, floats, v2.Normalize(_shares(MEAN), _shares(STD))]),
    )
