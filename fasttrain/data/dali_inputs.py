"""What a batch of the plan draws, in the terms and the order in which DALI's pipeline takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttrain.config import Crop, Cutout
from fasttrain.data.affine import Size
from fasttrain.data.augment import Transform

Array = NDArray[Any]

# Which pictures of a batch need it: TrivialAugment gives every one of them another operation.
NEEDED = "{} needed"
_ROUNDING = 1e-5
_MOVES = ("crop", "flip", "vertical_flip")  # geometry in whole pixels


def input_names(transform: Transform) -> list[str]:
    """What the pipeline is fed with beside the pictures, in order."""
    names = [str(entry.name) for entry in transform.augment]
    moves = ["warp"] if transform.warps or any(name in _MOVES for name in names) else []
    colour = ["colour"] if transform.recolors else []
    few = [name for name in (*moves, *colour) if transform.tones]
    return [*moves, *colour, *map(NEEDED.format, few), *(n for n in names if n == "cutout")]


def parameters(inputs: dict[str, Array], transform: Transform, size: Size) -> list[Array]:
    """What is drawn, in the terms and the order of the pipeline's inputs."""
    names = input_names(transform)
    if "warp" in names and not transform.warps:
        inputs["warp"] = _whole_pixels(inputs, transform, size)
    if transform.tones:
        inputs[NEEDED.format("warp")] = _interpolates(inputs["warp"])
        inputs[NEEDED.format("colour")] = _differs(inputs["colour"], np.eye(3, 4))
    for entry in transform.augment:
        if isinstance(entry, Cutout):
            inputs["cutout"] = (inputs["cutout"] - np.int32(entry.size // 2)).astype(np.float32)
    return [inputs[name] for name in names]


def _whole_pixels(draws: Mapping[str, Array], transform: Transform, size: Size) -> Array:
    """Cropping and mirroring as maps from a new picture into the old one, (B, 2, 3).

    To DALI a number for each picture costs what grows with the square of the batch (2.4: a batch
    of 10,240 took 60 us a picture to mirror); an array for each picture does not.
    """
    corner = next((draws["crop"] - e.padding for e in transform.augment if isinstance(e, Crop)), 0)
    count = len(next(draws[name] for name in _MOVES if name in draws))
    maps = np.zeros((count, 2, 3), np.float32)
    maps[:, :, 2] = transform.margin
    maps[:, ::-1, 2] += corner  # it is (top, left), a map is (x, y)
    for axis, name in enumerate(("flip", "vertical_flip")):
        mirrored = draws.get(name, 0)
        maps[:, axis, axis] = 1 - 2 * mirrored
        maps[:, axis, 2] += mirrored * size[1 - axis]
    return maps


def _interpolates(maps: Array) -> Array:
    """Which of the maps, (B, 2, 3), look between pixels: all but whole shifts and mirrorings."""
    return _differs(np.abs(maps[..., :2]), np.eye(2)) | _differs(maps[..., 2], maps[..., 2].round())


def _differs(maps: Array, others: Array) -> Array:
    """Which maps are others by more than rounding, which is too little to change a grey level."""
    far: Array = np.abs(maps - others).reshape(len(maps), -1).max(axis=1) > _ROUNDING
    return far
