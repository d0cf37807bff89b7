"""Affine maps of a picture's plane, composed in the plan so that every picture is warped once.

A map says for each point of the new picture where in the old one it comes from. Coordinates are
`(x, y)` in pixels, x to the right and y down, and `(0, 0)` is the corner of the first pixel, so a
pixel's middle lies at one half.

Shapes: a map is an array (2, 3, R): two rows `(a, b, c)` that mean `a x + b y + c`, for each of R
pictures (or 1 for all). Pictures come last because numpy is fast along the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttrain.data.randomness import Reals

Numbers = NDArray[Any] | float
Size = tuple[int, int]  # height and width


def affine(rows: Sequence[Sequence[Numbers]]) -> Reals:
    """Build a map from its six numbers, each one for all pictures or one for each of them."""
    result = np.empty((2, 3, max(np.size(number) for row in rows for number in row)))
    for row, column in np.ndindex(2, 3):
        result[row, column] = rows[row][column]
    return result


def identity() -> Reals:
    """Every point stays where it is."""
    return affine([(1, 0, 0), (0, 1, 0)])


def compose(first: Reals, then: Reals) -> Reals:
    """What is done to a picture by `first` and `then` in turn, as one map.

    A point of the last picture is looked up in the middle one, and from there in the first.
    """
    result = np.empty((2, 3, max(first.shape[2], then.shape[2])))
    for row in range(2):
        result[row] = first[row, 0] * then[0] + first[row, 1] * then[1]
        result[row, 2] += first[row, 2]
    return result


def shift(down: Numbers, right: Numbers) -> Reals:
    """Look `down` and `right` of each point: what is seen moves up and left."""
    return affine([(1, 0, right), (0, 1, down)])


def box(top: Numbers, left: Numbers, height: Numbers, width: Numbers, size: Size) -> Reals:
    """Enlarge a box, given in shares of the picture's `size`, to the whole of it."""
    return affine([(width, 0, left * size[1]), (0, height, top * size[0])])


def mirror(across: Numbers, down: Numbers, size: Size) -> Reals:
    """Mirror left to right where `across` is 1, top to bottom where `down` is."""
    return affine(
        [(1 - 2 * across, 0, across * size[1]), (0, 1 - 2 * down, down * size[0])],
    )


def rotation(degrees: Numbers, size: Size) -> Reals:
    """Turn the picture counter-clockwise about its centre."""
    angle = np.deg2rad(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = size[1] / 2, size[0] / 2
    return affine(
        [(cosine, -sine, x - cosine * x + sine * y), (sine, cosine, y - sine * x - cosine * y)]
    )
