"""Mix-up and CutMix: two pictures become one, on the device, inside the training step.

The rows of a batch are mixed in pairs: rows 0 and 1 are each other's partner, rows 2 and 3, and so
on. The order of an epoch is random, so neighbours are as random a pair as any; and a pair never
straddles two ranks while a rank's slice is even, so a rank needs nothing from another, and the
number of ranks changes nothing. Each picture has a weight or a box of its own.

Shapes: B is a rank's slice, even. `mixing` is (B, 5) float32: the weight of the picture itself, 0
to 1, then top, left, bottom and right of the box that its partner fills, in whole pixels. At most
one of the two changes anything: the weight is 1, or the box empty.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mix(images: Tensor, mixing: Tensor) -> Tensor:
    """Mix (B, 3, H, W) pictures in pairs; the same shape, channels last.

    Mix-up is Zhang et al., arXiv 1710.09412, section 2; CutMix is Yun et al., arXiv 1905.04899,
    section 3.1.
    """
    boxed = inside(mixing[:, 1:3], mixing[:, 3:], images.shape[2], images.shape[3])
    own = torch.where(boxed, 0.0, mixing[:, :1, None])[:, None]
    partners = swap(images)
    return (partners + own * (images - partners)).contiguous(memory_format=torch.channels_last)


def label_weights(mixing: Tensor, height: int, width: int) -> Tensor:
    """How much each picture's own label counts, (B,) from 0 to 1; its partner's has the rest."""
    weight, top, left, bottom, right = mixing.unbind(dim=1)
    return weight * (1 - (bottom - top) * (right - left) / (height * width))


def swap(values: Tensor) -> Tensor:
    """Exchange the rows of each pair; (B, ...)."""
    pairs = values.reshape(-1, 2, *values.shape[1:])
    return pairs.flip(1).reshape(values.shape)


def inside(first: Tensor, end: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in boxes from (B, 2) top and left to bottom and right; (B, H, W) bool."""
    rows, columns = (torch.arange(length, device=first.device) for length in (height, width))
    inside_rows = (rows >= first[:, :1]) & (rows < end[:, :1])
    inside_columns = (columns >= first[:, 1:]) & (columns < end[:, 1:])
    return inside_rows[:, :, None] & inside_columns[:, None, :]
