"""The resident loader: the whole split on the device, every batch one compiled gather.

Pixels are kept packed, three channels in one 32-bit word, so that a crop and a flip move whole
pixels: on a CPU that is several times faster than gathering single bytes, on a GPU a warp reads
full words. The plan of an epoch is copied to the device once, not once a batch.

A recipe that needs an affine warp calls torch's own between two compiled parts: on a CPU it is
twice as fast as what the compiler makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ParamSpec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasttrain.config import Crop
from fasttrain.data.augment import Transform, gather_pixels, source_positions
from fasttrain.data.colour import matrices, measure_all, recolor
from fasttrain.data.loader import Pictures, as_tensors
from fasttrain.data.plan import Plan, Shard
from fasttrain.data.store import Split, let_go
from fasttrain.data.transfer import to_device

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
    ahead = 0

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
        self._transform = transform
        self._pixels = torch.from_numpy(pack(split.images)).to(device)
        self._labels = torch.from_numpy(np.asarray(split.labels)).to(device)
        self._statistics = measure_all(split.images).to(device) if transform.recolors else None
        let_go(split.images)
        self._device = device
        self._start = _compiled(_start_of(transform), compile)
        self._finish = _compiled(_finish_of(transform), compile)
        self._kept: tuple[int, Tensor, dict[str, Tensor]] | None = None

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        """Yield this rank's slices of batches `first` to `last - 1`."""
        for step in range(first, last):
            epoch, rows, valid = self._plan.locate(step, self._shard)
            indices, draws = self._on_device(epoch)
            now = {name: values[rows] for name, values in draws.items()}
            images = self._execute(step, indices[rows], now)
            yield Pictures(images, self._labels[indices[rows]], valid, now.get("mixing"))

    def _execute(self, step: int, indices: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """Change the pictures at `indices` as drawn."""
        started = self._start(self._pixels, indices, draws)
        if self._transform.warps:
            host = self._plan.batch(step, self._shard).draws
            toned = self._transform.tone(started, as_tensors(host))
            started = self._transform.move(toned, draws)
        if self._statistics is None:
            return self._finish(started, draws, None)
        return self._finish(started, draws, self._statistics[indices])

    def _on_device(self, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The plan of an epoch, which is copied once."""
        if self._kept is None or self._kept[0] != epoch:
            whole = self._plan.epoch(epoch)
            tensors = as_tensors({**whole.draws, "indices": whole.indices})
            moved = {name: to_device(values, self._device) for name, values in tensors.items()}
            self._kept = epoch, moved.pop("indices"), moved
        return self._kept[1:]

    def close(self) -> None:
        """Nothing to end: the memory goes with the object."""


def pack(images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Pack (N, H, W, 3) uint8 into (N, H, W) words: red in the lowest byte, the highest zero."""
    words = np.zeros((*images.shape[:3], 4), dtype=np.uint8)
    for channel in range(3):  # three times as fast as three bytes at a time
        words[..., channel] = images[..., channel]
    return words.view("<i4")[..., 0]


def unpack(words: Tensor) -> Tensor:
    """Undo `pack`: (B, H, W) words to (B, H, W, 3) grey levels, still 32 bits each."""
    return torch.stack([(words >> shift) & 255 for shift in _SHIFTS], dim=-1)


def _start_of(transform: Transform) -> Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]:
    """What comes straight from the whole split: one gather of packed pixels.

    It gives packed pictures that are cut and mirrored, or for a warp the stored ones, unpacked.
    """
    if transform.warps:
        return lambda pixels, indices, _draws: unpack(pixels[indices]).to(torch.uint8)
    if not transform.augment:
        return lambda pixels, indices, _draws: pixels[indices]
    return _gather_of(transform)


def _gather_of(transform: Transform) -> Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]:
    """All geometry in whole pixels."""
    crop = next((entry for entry in transform.augment if isinstance(entry, Crop)), None)
    padding, mode = (crop.padding, crop.mode) if crop else (0, "reflect")

    def gather(pixels: Tensor, indices: Tensor, draws: dict[str, Tensor]) -> Tensor:
        height, width = pixels.shape[1:]
        corner = draws["crop"] if "crop" in draws else indices.new_zeros(len(indices), 2)
        rows = source_positions(corner[:, 0], height, padding)
        columns = source_positions(corner[:, 1], width, padding)
        # Mirroring the cut is reading its columns from the right, its rows from below.
        if "flip" in draws:
            columns = torch.where(draws["flip"].bool()[:, None], columns.flip(1), columns)
        if "vertical_flip" in draws:
            rows = torch.where(draws["vertical_flip"].bool()[:, None], rows.flip(1), rows)
        return gather_pixels(pixels, indices, rows, columns, mode)

    return gather


def _finish_of(
    transform: Transform,
) -> Callable[[Tensor, dict[str, Tensor], Tensor | None], Tensor]:
    """All that is done to pictures once they are in place: unpack, recolour, cover, normalise."""

    def finish(images: Tensor, draws: dict[str, Tensor], statistics: Tensor | None) -> Tensor:
        if not transform.warps:
            images = unpack(images)
        if statistics is not None:
            images = recolor(images, matrices(draws, statistics))
        images = transform.cover(images, draws)
        # Normalising whole words is twice as fast on a CPU as narrowing them to bytes first.
        return transform.finish(images.to(torch.uint8) if transform.raw else images)

    return finish


def _compiled(function: Callable[P, Tensor], enabled: bool) -> Callable[P, Tensor]:
    if not enabled:
        return function
    # The plan holds only valid positions, so the generated code need not check each one.
    options: dict[str, str | int | bool | Callable[..., object]] = {
        "assert_indirect_indexing": False
    }
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)
