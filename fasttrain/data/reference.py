"""The reference loader: torchvision and a torch `DataLoader`, one picture at a time.

It is what most projects use, and the slow, independent implementation of every augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as vision

from fasttrain.config import Augmentation, Crop, Cutout, Flip
from fasttrain.data.augment import Transform
from fasttrain.data.loader import Pictures
from fasttrain.data.plan import Plan, Shard
from fasttrain.data.store import Split

Item = tuple[int, int]  # the step, and the row in this rank's slice of its batch


class ReferenceLoader:
    """Executes a plan with torchvision; see `loader.Loader` for the contract.

    Args:
        split: The pictures.
        plan: Which of them, in which order, changed how.
        shard: The part of every batch that this rank executes.
        transform: What the plan's draws mean.
        device: Where batches are delivered.
        workers: Number of worker processes; 0 loads in this process.
    """

    name = "reference"

    def __init__(
        self,
        split: Split,
        plan: Plan,
        shard: Shard,
        transform: Transform,
        device: torch.device,
        workers: int = 2,
    ) -> None:
        self._dataset = _PlannedPictures(split, plan, shard, transform)
        self._plan = plan
        self._shard = shard
        self._device = device
        self._workers = workers

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        """Yield this rank's slices of batches `first` to `last - 1`."""
        share = self._plan.batch_size // self._shard.world
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            self._dataset,
            batch_sampler=_Rows(range(first, last), share),
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
        )
        for step, (images, labels) in zip(range(first, last), loader, strict=True):
            valid = self._plan.batch(step, self._shard).valid
            moved = images.to(self._device, non_blocking=True)
            yield Pictures(
                moved.contiguous(memory_format=torch.channels_last),
                labels.to(self._device, non_blocking=True),
                valid,
            )

    def close(self) -> None:
        """Nothing to end: worker processes end with each pass."""


class _Rows(Sampler[list[Item]]):
    """The rows of one batch after the other, made as they are asked for."""

    def __init__(self, steps: range, share: int) -> None:
        self._steps, self._share = steps, share

    def __iter__(self) -> Iterator[list[Item]]:
        for step in self._steps:
            yield [(step, row) for row in range(self._share)]


class _PlannedPictures(Dataset[tuple[Tensor, int]]):
    """Looks a picture up by its place in the plan and changes it as drawn."""

    def __init__(self, split: Split, plan: Plan, shard: Shard, transform: Transform) -> None:
        self._split = split
        self._plan = plan
        self._shard = shard
        self._transform = transform

    def __getitem__(self, item: Item) -> tuple[Tensor, int]:
        step, row = item
        batch = self._plan.batch(step, self._shard)
        index = batch.indices[row]
        image = torch.from_numpy(self._split.images[index].copy()).permute(2, 0, 1)
        for entry in self._transform.augment:
            image = _augment(image, entry, batch.draws[entry.name][row], self._transform.fill)
        if not self._transform.raw:
            image = vision.normalize(
                image.float(), list(self._transform.mean), list(self._transform.std)
            )
        return image, int(self._split.labels[index])


def _augment(image: Tensor, entry: Augmentation, draw: Any, fill: tuple[int, int, int]) -> Tensor:
    """Apply one augmentation to one (3, H, W) uint8 picture."""
    _, height, width = image.shape
    changed: Tensor = image
    match entry:
        case Crop():
            mode = "constant" if entry.mode == "zero" else "reflect"
            padded = vision.pad(image, [entry.padding] * 4, padding_mode=mode)
            changed = vision.crop(padded, int(draw[0]), int(draw[1]), height, width)
        case Flip():
            changed = vision.horizontal_flip(image) if draw else image
        case Cutout():
            first = [int(centre) - entry.size // 2 for centre in draw]
            top, left = max(first[0], 0), max(first[1], 0)
            bottom, right = min(first[0] + entry.size, height), min(first[1] + entry.size, width)
            colour = torch.tensor(fill, dtype=image.dtype)[:, None, None]
            changed = vision.erase(image, top, left, bottom - top, right - left, colour)
    return changed
