"""Progressive resizing: small pictures first, full size last.

Howard, "Training Imagenet in 3 hours for $25", fast.ai, 2018.

Shapes: B pictures of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain import models
from fasttrain.config import Model, Resize
from fasttrain.errors import UserError
from fasttrain.training.schedule import to_steps


class Matrices(NamedTuple):
    """What makes pictures smaller: `rows @ picture @ columns`, (h, H) and (W, w)."""

    rows: Tensor
    columns: Tensor


class Resizer:
    """Which size the pictures of a step have: a pure function of the step.

    Args:
        resizes: In order; each lasts until its moment, after the last one pictures are whole.
        size: H and W.
        steps_per_epoch: Steps in one epoch.
        total: Steps in the whole run.
        device: Where the pictures are.

    Attributes:
        sizes: Height and width that each of them leaves.

    Raises:
        UserError: one ends before the one ahead of it.
    """

    def __init__(
        self,
        resizes: Sequence[Resize],
        size: tuple[int, int],
        steps_per_epoch: int,
        total: int,
        device: torch.device,
    ) -> None:
        self._resizes, self._size, self._total = resizes, size, total
        self.sizes = [scaled(size, each.scale) for each in resizes]
        ends = [to_steps(each.until, steps_per_epoch, total) for each in resizes]
        if ends != sorted(ends):
            moments = ", ".join(str(each.until) for each in resizes)
            raise UserError(f"train.resize: each entry ends after the one before it, not {moments}")
        self._ends = [min(end, total) for end in ends]
        self._matrices = [
            Matrices(*(side.to(device) for side in matrices(size, small))) for small in self.sizes
        ]

    def check(self, model: Model) -> None:
        """Refuse a size of which a network leaves no pixels; raises `UserError`."""
        for each, size in zip(self._resizes, self.sizes, strict=True):
            try:
                models.check(model, size)
            except UserError as error:
                raise UserError(f"train.resize: scale={each.scale} is too small: {error}") from None

    def phases(self) -> list[tuple[tuple[int, int], int]]:
        """Every size the pictures have, in order, and how many steps it lasts; none lasts 0."""
        starts, ends = [0, *self._ends], [*self._ends, self._total]
        sizes = [*self.sizes, self._size]
        steps = [end - start for start, end in zip(starts, ends, strict=True)]
        return [(size, count) for size, count in zip(sizes, steps, strict=True) if count]

    def __call__(self, step: int) -> Matrices | None:
        """What resizes the pictures of step number `step`, counted from 0; `None` for nothing."""
        for end, found in zip(self._ends, self._matrices, strict=True):
            if step < end:
                return found
        return None

    def after(self, step: int) -> list[Matrices | None]:
        """What later steps than number `step` ask for, and that one does not."""
        starts, ends = [0, *self._ends], [*self._ends, self._total]
        found = zip([*self._matrices, None], starts, ends, strict=True)
        return [matrices for matrices, start, end in found if step < start < end]


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width times `scale`, in whole pixels, at least one."""
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def matrices(size: tuple[int, int], small: tuple[int, int]) -> Matrices:
    """Bilinear interpolation from `size` to `small` that averages over what it shrinks.

    torch's antialiased `interpolate`, applied to the identity.
    """
    sides = []
    for whole, part in zip(size, small, strict=True):
        identity = torch.eye(whole)[None, None]
        sides.append(F.interpolate(identity, (part, whole), mode="bilinear", antialias=True)[0, 0])
    return Matrices(sides[0], sides[1].T.contiguous())


def resize(images: Tensor, by: Matrices) -> Tensor:
    """(B, 3, H, W) to (B, 3, h, w), channels last."""
    small = torch.einsum("hH,bcHW,Ww->bchw", by.rows, images, by.columns)
    return small.contiguous(memory_format=torch.channels_last)
