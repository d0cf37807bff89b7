"""The reference loader: torchvision and a torch `DataLoader`, one picture at a time.

It is what most projects use, and slow; all but the map of colours is an independent implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as vision

from fasttrain.config import Augmentation, Crop, Cutout, Flip, VerticalFlip
from fasttrain.data.augment import Transform
from fasttrain.data.colour import matrices, measure, recolor
from fasttrain.data.loader import Pictures, mixing_of
from fasttrain.data.plan import Plan, Shard
from fasttrain.data.store import Split
from fasttrain.data.trivial import FACTOR, LEVELS, Op

_AHEAD = 2  # batches for each worker
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
        self.ahead = workers * _AHEAD

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        """Yield this rank's slices of batches `first` to `last - 1`."""
        share = self._shard.share(self._plan.batch_size)
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            self._dataset,
            batch_sampler=_Rows(range(first, last), share),
            num_workers=self._workers,
            prefetch_factor=_AHEAD if self._workers else None,
            pin_memory=self._device.type == "cuda",
        )
        for step, (images, labels) in zip(range(first, last), loader, strict=True):
            batch = self._plan.batch(step, self._shard)
            moved = images.to(self._device, non_blocking=True)
            yield Pictures(
                moved.contiguous(memory_format=torch.channels_last),
                labels.to(self._device, non_blocking=True),
                batch.valid,
                mixing_of(batch, self._device),
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
        draws = {name: values[row] for name, values in batch.draws.items()}
        image = _change(image, draws, self._transform)
        if not self._transform.raw:
            image = vision.normalize(
                image.float(), list(self._transform.mean), list(self._transform.std)
            )
        return image, int(self._split.labels[index])


def _change(image: Tensor, draws: Mapping[str, Any], transform: Transform) -> Tensor:
    """Apply every augmentation to one (3, H, W) uint8 picture."""
    moved = _tone(image, *draws["trivial_augment"].tolist()) if transform.tones else image
    if transform.warps:
        moved = _warp(moved, draws["warp"], transform.margin)
    else:
        for entry in transform.augment:
            moved = _move(moved, entry, draws)
    if transform.recolors:
        moved = _recolor(moved, image, draws)
    for entry in transform.augment:
        if isinstance(entry, Cutout):
            moved = _cover(moved, draws["cutout"], entry.size, transform.fill)
    return moved


def _tone(image: Tensor, operation: int, level: int) -> Tensor:
    """One of TrivialAugment's changes of tone."""
    share = abs(level) / LEVELS
    toned: Tensor = image
    match operation:
        case Op.POSTERIZE:
            toned = vision.posterize(image, round(8 - 6 * share))
        case Op.SOLARIZE:
            toned = vision.solarize(image, 255 * (1 - share))
        case Op.EQUALIZE:
            toned = vision.equalize(image)
        case Op.SHARPNESS:
            # In floats, for torchvision cuts the fractions of whole levels off.
            sharp = vision.adjust_sharpness(image / 255, 1 + FACTOR * level / LEVELS)
            toned = (255 * sharp).round().to(torch.uint8)
    return toned


def _move(image: Tensor, entry: Augmentation, draws: Mapping[str, Any]) -> Tensor:
    """One augmentation's geometry in whole pixels."""
    moved: Tensor = image
    match entry:
        case Crop(padding=padding):
            mode = "constant" if entry.mode == "zero" else "reflect"
            padded = vision.pad(image, [padding] * 4, padding_mode=mode)
            top, left = draws["crop"].tolist()
            moved = vision.crop(padded, top, left, *image.shape[1:])
        case Flip():
            moved = vision.horizontal_flip(image) if draws["flip"] else image
        case VerticalFlip():
            moved = vision.vertical_flip(image) if draws["vertical_flip"] else image
    return moved


def _warp(image: Tensor, matrix: NDArray[np.float32], margin: int) -> Tensor:
    """Torchvision's warp with any affine map is a perspective whose horizon is infinitely far."""
    padded = vision.pad(image, [margin] * 4, padding_mode="reflect") if margin else image
    coefficients = [*matrix.ravel().tolist(), 0.0, 0.0]
    warped = vision.perspective(padded, None, None, coefficients=coefficients)
    cut: Tensor = vision.crop(warped, 0, 0, *image.shape[1:])
    return cut


def _recolor(image: Tensor, stored: Tensor, draws: Mapping[str, Any]) -> Tensor:
    """The colour map that the drawn factors make with what the stored picture is like."""
    drawn = {name: torch.from_numpy(values[None]) for name, values in draws.items()}
    matrix = matrices(drawn, measure(stored.permute(1, 2, 0)[None]))
    return recolor(image.permute(1, 2, 0)[None], matrix)[0].permute(2, 0, 1)


def _cover(image: Tensor, centre: Any, size: int, fill: tuple[int, int, int]) -> Tensor:
    """Erase what of the square lies in the picture."""
    _, height, width = image.shape
    first = [int(middle) - size // 2 for middle in centre]
    top, left = max(first[0], 0), max(first[1], 0)
    bottom, right = min(first[0] + size, height), min(first[1] + size, width)
    colour = torch.tensor(fill, dtype=image.dtype)[:, None, None]
    covered: Tensor = vision.erase(image, top, left, bottom - top, right - left, colour)
    return covered
