"""The resident loader: the whole split on the device, every batch one compiled gather.

Pixels are kept packed, three channels in one 32-bit word, so that a crop and a flip move whole
pixels: on a CPU that is several times faster than gathering single bytes, on a GPU a warp reads
full words. The plan of an epoch is copied to the device once, not once a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasttrain.config import Crop, Cutout, Flip
from fasttrain.data.augment import Transform, covered, gather_pixels, source_positions
from fasttrain.data.loader import Pictures
from fasttrain.data.plan import Plan, Shard
from fasttrain.data.store import Split

_SHIFTS = (0, 8, 16)

P = ParamSpec("P")


class ResidentLoader:
    """Executes a plan from memory on the device; see `loader.Loader` for the contract.

    Args:
        split: The pictures; copied to the device once, at 4 bytes a pixel.
        plan: Which of them, in which order, changed how.
        shard: The part of every batch that this rank executes.
        transform: What the plan's draws mean.
        device: Where batches are made.
        compile: Whether the gather is compiled; without it the same code runs eagerly.
    """

    name = "resident"

    def __init__(
        self,
        split: Split,
        plan: Plan,
        shard: Shard,
        transform: Transform,
        device: torch.device,
        compile: bool = True,  # noqa: A002 - the name torch gives it
    ) -> None:
        self._plan = plan
        self._shard = shard
        self._pixels = torch.from_numpy(pack(split.images)).to(device)
        self._labels = torch.from_numpy(np.asarray(split.labels)).to(device)
        self._device = device
        self._gather = _compiled(_gather_of(transform), compile)
        self._decode = _compiled(_decode_of(transform), compile)
        self._epoch = lru_cache(maxsize=1)(self._upload)

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        """Yield this rank's slices of batches `first` to `last - 1`."""
        for step in range(first, last):
            epoch, rows, valid = self._plan.locate(step, self._shard)
            indices, draws = self._epoch(epoch)
            now = {name: values[rows] for name, values in draws.items()}
            words = self._gather(self._pixels, indices[rows], now)
            yield Pictures(self._decode(words), self._labels[indices[rows]], valid)

    def _upload(self, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Copy the plan of an epoch to the device."""
        whole = self._plan.epoch(epoch)
        draws = {name: torch.from_numpy(values) for name, values in whole.draws.items()}
        moved = {name: values.to(self._device, non_blocking=True) for name, values in draws.items()}
        return torch.from_numpy(whole.indices).to(self._device, non_blocking=True), moved

    def close(self) -> None:
        """Nothing to end: the memory goes with the object."""


def pack(images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Pack (N, H, W, 3) uint8 into (N, H, W) words: red in the lowest byte, the highest zero."""
    words = np.zeros((*images.shape[:3], 4), dtype=np.uint8)
    words[..., :3] = images
    return words.view("<i4")[..., 0]


def _gather_of(transform: Transform) -> Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]:
    """All geometry as one gather of packed pixels, straight from the whole split."""
    entries = {str(entry.name): entry for entry in transform.augment}
    crop, flip, cutout = (entries.get(name) for name in ("crop", "flip", "cutout"))
    red, green, blue = transform.fill
    fill = red | green << _SHIFTS[1] | blue << _SHIFTS[2]

    def gather(pixels: Tensor, indices: Tensor, draws: dict[str, Tensor]) -> Tensor:
        height, width = pixels.shape[1:]
        corner = draws["crop"] if isinstance(crop, Crop) else indices.new_zeros(len(indices), 2)
        padding, mode = (crop.padding, crop.mode) if isinstance(crop, Crop) else (0, "reflect")
        rows = source_positions(corner[:, 0], height, padding)
        columns = source_positions(corner[:, 1], width, padding)
        if isinstance(flip, Flip):
            # Mirroring the cut is reading its columns from the right.
            columns = torch.where(draws["flip"].bool()[:, None], columns.flip(1), columns)
        words = gather_pixels(pixels, indices, rows, columns, mode)
        if isinstance(cutout, Cutout):
            hidden = covered(draws["cutout"], cutout.size, height, width)
            words = torch.where(hidden, fill, words)
        return words

    return gather if transform.augment else lambda pixels, indices, _draws: pixels[indices]


def _decode_of(transform: Transform) -> Callable[[Tensor], Tensor]:
    """Unpack the gathered words and normalise."""

    def decode(words: Tensor) -> Tensor:
        images = torch.stack([(words >> shift) & 255 for shift in _SHIFTS], dim=-1)
        # Normalising whole words is twice as fast on a CPU as narrowing them to bytes first.
        return transform.finish(images.to(torch.uint8) if transform.raw else images)

    return decode


def _compiled(function: Callable[P, Tensor], enabled: bool) -> Callable[P, Tensor]:
    if not enabled:
        return function
    # The plan holds only valid positions, so the generated code need not check each one.
    options: dict[str, str | int | bool | Callable[..., object]] = {
        "assert_indirect_indexing": False
    }
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)
