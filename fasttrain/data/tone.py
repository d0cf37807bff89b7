"""TrivialAugment's changes of tone, which no linear map of colours can make.

They jump: a grey level more or less can become many. So they come first, on the pictures as they
are stored, where every loader has the very same bits; after an interpolation, what one loader
rounds up and another down would be torn apart. As each picture gets one operation, few of a
batch are looked at: every operation gathers its own rows and puts them back.

Shapes: B pictures (B, H, W, 3) uint8; levels (B,) integers, of which the sign does not count but
for sharpness.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.data.transfer import to_device
from fasttrain.data.trivial import FACTOR, LEVELS, Op


def tone(images: Tensor, drawn: Tensor) -> Tensor:
    """Apply the changes of tone among the drawn operations; the rest of the rows stay.

    Args:
        images: (B, H, W, 3) uint8.
        drawn: (B, 2) operations and levels, on the CPU: which rows are meant must be known here
            without asking the device.
    """
    changed = images.clone()
    for op, function in _TONES.items():
        rows = (drawn[:, 0] == op).nonzero()[:, 0]
        if len(rows):
            levels = to_device(drawn[rows, 1], images.device)
            rows = to_device(rows, images.device)
            changed[rows] = function(images[rows], levels)
    return changed


def posterize(images: Tensor, levels: Tensor) -> Tensor:
    """Keep the upper bits of each channel: 8 at level 0, 2 at the highest."""
    bits = (8 - levels.abs() * (6 / LEVELS)).round().int()
    mask = 256 - (1 << (8 - bits))
    return images & mask.to(torch.uint8)[:, None, None, None]


def solarize(images: Tensor, levels: Tensor) -> Tensor:
    """Invert what is as bright as a threshold, which is 255 at level 0 and 0 at the highest."""
    threshold = 255 * (1 - levels.abs() / LEVELS)
    return torch.where(images >= threshold[:, None, None, None], 255 - images, images)


def equalize(images: Tensor, levels: Tensor) -> Tensor:  # noqa: ARG001 - it has no strength
    """Spread the levels of each channel so that all are about as frequent, as Pillow does it.

    A pixel becomes the number of darker pixels over a whole step, rounded; a step is a 255th of
    the pixels darker than the brightest. A channel with too few of these stays as it is.
    """
    channels = images.flatten(1, 2).transpose(1, 2).long()  # (B, 3, pixels)
    empty = torch.zeros(*channels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts = empty.scatter_add(2, channels, torch.ones_like(channels))
    darker = counts.cumsum(dim=2) - counts
    step = darker.gather(2, channels.amax(dim=2, keepdim=True)) // 255
    spread = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, spread, torch.arange(256, device=images.device))
    equal = table.gather(2, channels).to(torch.uint8)
    return equal.transpose(1, 2).reshape(images.shape)


def sharpen(images: Tensor, levels: Tensor) -> Tensor:
    """Move away from a blurred picture, or towards it at a negative level; the border stays.

    The blur is Pillow's: a pixel counts 5, each of its eight neighbours 1.
    """
    if min(images.shape[1:3]) < 3:  # all of it is border
        return images
    factor = 1 + (FACTOR / LEVELS) * levels[:, None, None, None]
    changed = images.permute(0, 3, 1, 2).float()
    inner = changed[:, :, 1:-1, 1:-1]
    blurred = (9 * F.avg_pool2d(changed, 3, stride=1) + 4 * inner) / 13
    changed[:, :, 1:-1, 1:-1] = blurred + factor * (inner - blurred)
    return changed.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


_TONES: dict[Op, Callable[[Tensor, Tensor], Tensor]] = {
    Op.SHARPNESS: sharpen,
    Op.POSTERIZE: posterize,
    Op.SOLARIZE: solarize,
    Op.EQUALIZE: equalize,
}
