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


class _Phase(NamedTuple):
    """Steps from `start` up to `end`, whose pictures have one size."""

    size: tuple[int, int]
    start: int
    end: int
    matrices: Matrices | None


class Resizer:
    """Which size the pictures of a step have: a pure function of the step.

    Args:
        resizes: In order; each lasts until its moment, after the last one pictures are whole.
        size: H and W.
        steps_per_epoch: Steps in one epoch.
        total: Steps in the whole run.
        device: Where the pictures are.

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
        ends = [to_steps(each.until, steps_per_epoch, total) for each in resizes]
        if ends != sorted(ends):
            moments = ", ".join(str(each.until) for each in resizes)
            raise UserError(f"train.resize: each entry ends after the one before it, not {moments}")
        self._resizes, self._size = resizes, size
        sizes = [scaled(size, each.scale) for each in resizes]
        by = [Matrices(*(side.to(device) for side in matrices(size, small))) for small in sizes]
        ends = [min(end, total) for end in ends]
        phases = zip([*sizes, size], [0, *ends], [*ends, total], [*by, None], strict=True)
        self._phases = [phase for phase in map(_Phase._make, phases) if phase.start < phase.end]

    def check(self, model: Model) -> None:
        """Refuse a size of which a network leaves no pixels; raises `UserError`."""
        for each in self._resizes:
            try:
                models.check(model, scaled(self._size, each.scale))
            except UserError as error:
                raise UserError(f"train.resize: scale={each.scale} is too small: {error}") from None

    def phases(self) -> list[tuple[tuple[int, int], int]]:
        """Every size the pictures have, in order, and how many steps it lasts; none lasts 0."""
        return [(phase.size, phase.end - phase.start) for phase in self._phases]

    def __call__(self, step: int) -> Matrices | None:
        """What resizes the pictures of step number `step`, counted from 0; `None` for nothing."""
        return next((phase.matrices for phase in self._phases if step < phase.end), None)

    def after(self, step: int) -> list[Matrices | None]:
        """What later steps than number `step` ask for, and that one does not."""
        return [phase.matrices for phase in self._phases if step < phase.start]


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
