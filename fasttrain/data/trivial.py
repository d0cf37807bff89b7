"""TrivialAugment's fourteen operations: what is drawn, and the geometry among them.

Each belongs to one stage of a picture's way: five are affine maps (here), five change nothing but
colours linearly (`colour`), four change tones in ways that no linear map does (`tone`). One
operation is left: it does nothing. Strengths are those of the wide space (Müller and Hutter,
arXiv 2103.10158, section 3) in the 31 levels of torchvision's `TrivialAugmentWide`.

Shapes: what is drawn for R pictures is (R, 2) int32: the operation, and the level, -30 to 30.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttrain.data import affine
from fasttrain.data.affine import Size
from fasttrain.data.randomness import Reals, Words, random_integers

LEVELS = 30
SHEAR, SHIFT, DEGREES, FACTOR = 0.99, 32, 135, 0.99  # at the highest level


class Op(IntEnum):
    """The operations, in torchvision's order."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTO_CONTRAST = 12
    EQUALIZE = 13


def draw(words: Words) -> NDArray[np.int32]:
    """Operation and signed level, (R, 2), from (R, 3) words.

    An operation without two directions takes the level without its sign.
    """
    operation = random_integers(words[:, 0], len(Op))
    level = random_integers(words[:, 1], LEVELS + 1)
    sign = 1 - 2 * random_integers(words[:, 2], 2)
    return np.stack([operation, level * sign], axis=1)


def geometry(drawn: NDArray[Any], size: Size) -> Reals:
    """The map of each picture, (2, 3, R); the identity where the operation is another."""
    operation, strength = drawn[:, 0], drawn[:, 1] / LEVELS
    result = np.repeat(affine.identity(), len(drawn), axis=2)
    for op, row, column, numbers in (
        (Op.SHEAR_X, 0, 1, SHEAR * strength),
        (Op.SHEAR_Y, 1, 0, SHEAR * strength),
        (Op.TRANSLATE_X, 0, 2, -np.trunc(SHIFT * strength)),
        (Op.TRANSLATE_Y, 1, 2, -np.trunc(SHIFT * strength)),
    ):
        chosen = operation == op
        result[row, column, chosen] = numbers[chosen]
    chosen = operation == Op.ROTATE
    result[:, :, chosen] = affine.rotation(DEGREES * strength[chosen], size)
    return result
