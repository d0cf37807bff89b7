"""Changes of colour: one affine map of (red, green, blue) for each picture.

Brightness, contrast, saturation and hue are all of this kind, so whatever a recipe asks for is one
matrix, applied, rounded and clamped once. Contrast turns about a picture's own mean grey, which
is that of the picture as it is stored: it is known before the picture is moved, and black that
has come in from outside does not darken it.

Shapes: B pictures of H x W pixels, (B, H, W, 3) uint8. A colour map is (3, 4): what each new
channel takes of red, green and blue, and what is added to it, in grey levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasttrain.data.trivial import FACTOR, LEVELS, Op

_GREY = [0.299, 0.587, 0.114]  # what makes a grey of a colour (ITU-R BT.601)
# That, and the two axes of colour that NTSC television adds to it.
_AXES = np.array([_GREY, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_TURN = np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]])  # a quarter of the circle, red to yellow
_TO_GREY = [_GREY] * 3
_TO_COLOUR = (np.eye(3) - _TO_GREY).tolist()  # what is left of a pixel without its grey
_TO_QUARTER = (np.linalg.inv(_AXES) @ _TURN @ _AXES).tolist()  # and that, turned
# As plain numbers, for the compiler; the first in the order in which a jitter has its factors.
_STEPS = (int(Op.BRIGHTNESS), int(Op.CONTRAST), int(Op.COLOR))
_STRETCH = int(Op.AUTO_CONTRAST)
_MEASURED = 2**20  # pixels at a time, since a sum widens them to 64 bits


def measure(images: Tensor) -> Tensor:
    """What colour maps need to know of stored pictures.

    Returns mean, lowest and highest level of each channel, (B, 3, 3) float32.
    """
    pixels = images.shape[1] * images.shape[2]
    mean = images.sum(dim=(1, 2), dtype=torch.int64) / pixels
    return torch.stack([mean, images.amin(dim=(1, 2)), images.amax(dim=(1, 2))], dim=1)


def measure_all(images: NDArray[np.uint8]) -> Tensor:
    """`measure` the pictures of a whole split, a part at a time: they may lie on disk."""
    _, height, width, _ = images.shape
    piece = max(_MEASURED // (height * width), 1)
    parts = (images[start : start + piece] for start in range(0, len(images), piece))
    return torch.cat([measure(torch.from_numpy(np.array(part))) for part in parts])


def matrices(draws: Mapping[str, Tensor], statistics: Tensor) -> Tensor:
    """The colour map of each picture, (B, 3, 4).

    Args:
        draws: What the plan has drawn.
        statistics: What `measure` finds in the stored pictures.
    """
    mean = statistics[:, 0]
    if "trivial_augment" not in draws:
        return jitter(draws["color_jitter"], mean)
    first = trivial_colour(draws["trivial_augment"], statistics)
    if "color_jitter" not in draws:
        return first
    then = jitter(draws["color_jitter"], _apply(first, mean[:, None])[:, 0])
    # Not as a matrix product: a GPU may round its factors to ten bits.
    linear = (then[..., :3, None] * first[:, None, :, :3]).sum(dim=2)
    return torch.cat([linear, _apply(then, first[..., 3:].mT).mT], dim=2)


def trivial_colour(drawn: Tensor, statistics: Tensor) -> Tensor:
    """TrivialAugment's brightness, colour, contrast and auto-contrast; (B, 2) to (B, 3, 4).

    The first three are single steps of a jitter. Auto-contrast stretches each channel from its
    lowest to its highest level over the whole range.
    """
    operation, level = drawn.unbind(1)
    factor = 1 + (FACTOR / LEVELS) * level
    steps = [torch.where(operation == op, factor, 1.0) for op in _STEPS]
    matrix = jitter(torch.stack([*steps, torch.zeros_like(factor)], dim=1), statistics[:, 0])
    low, high = statistics[:, 1:].unbind(1)
    stretches = (operation == _STRETCH)[:, None] & (high > low)
    scale = torch.where(stretches, 255 / (high - low).clamp(min=1), 1.0)[..., None]
    offset = torch.where(stretches, -low, 0.0)[..., None] * scale
    return torch.cat([matrix[..., :3] * scale, matrix[..., 3:] + offset], dim=2)


def jitter(factors: Tensor, mean: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue in turn; (B, 4) factors to (B, 3, 4).

    Brightness scales; contrast scales about the mean grey that this leaves; saturation scales a
    pixel's distance from its own grey; hue turns it about that grey, in the plane of NTSC's two
    colour axes. The last two leave greys alone, so the four are one matrix and one grey offset.

    Args:
        factors: Of brightness, contrast and saturation, 1 being no change; the hue in full turns.
        mean: (B, 3) mean of each channel.
    """
    grey, colour, quarter = (
        torch.tensor(part, device=mean.device) for part in (_TO_GREY, _TO_COLOUR, _TO_QUARTER)
    )
    brightness, contrast, saturation, hue = (value[:, None, None] for value in factors.unbind(1))
    angle = 2 * math.pi * hue
    turned = torch.cos(angle) * colour + torch.sin(angle) * quarter
    linear = brightness * contrast * (grey + saturation * turned)
    level = (mean * grey[0]).sum(dim=1)[:, None, None]
    offset = (1 - contrast) * brightness * level
    return torch.cat([linear, offset.expand(-1, 3, 1)], dim=2)


def recolor(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply a (B, 3, 4) colour map to every pixel, round and clamp; uint8 in, uint8 out."""
    return _apply(matrix[:, None], images).round().clamp(0, 255).to(torch.uint8)


def _apply(matrix: Tensor, colours: Tensor) -> Tensor:
    """Map (B, ..., 3) colours by the (B, ..., 3, 4) matrix that belongs to them."""
    rows = matrix[:, None]
    changed = rows[..., 3]
    for channel in range(3):
        changed = changed + colours[..., channel, None] * rows[..., channel]
    return changed
