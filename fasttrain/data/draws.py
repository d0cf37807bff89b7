"""From random words to the parameters of each augmentation, and from these to what is executed.

`parameters` reads one augmentation's words; `combine` puts together what several augmentations
do: geometry that is not in whole pixels becomes one affine map for each picture, mix-up and
CutMix one row of numbers. What a loader is then given, by name, for R pictures:

    trivial_augment  (R, 2) int32       the operation and its signed level (`trivial`)
    crop             (R, 2) int32       top and left edge of the cut, in the padded picture
    flip             (R,) int32         1: mirror left to right
    vertical_flip    (R,) int32         1: mirror top to bottom
    warp             (R, 2, 3) float32  in place of these: where each point comes from (`affine`)
    color_jitter     (R, 4) float32     factors of brightness, contrast and saturation; hue, turns
    cutout           (R, 2) int32       the pixel in the centre of the square
    mixing           (R, 5) float32     see `mixing`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttrain.config.augment import (
    Augmentation,
    ColorJitter,
    Crop,
    CutMix,
    Cutout,
    Flip,
    MixUp,
    ResizedCrop,
    Rotation,
    TrivialAugment,
    VerticalFlip,
    mixes,
)
from fasttrain.data import affine, trivial
from fasttrain.data.affine import Size
from fasttrain.data.randomness import (
    Reals,
    Words,
    random_beta,
    random_integers,
    random_uniform,
)

Array = NDArray[Any]

WORDS = {
    "trivial_augment": 3,
    "crop": 2,
    "resized_crop": 4,
    "rotation": 1,
    "flip": 1,
    "vertical_flip": 1,
    "color_jitter": 4,
    "cutout": 2,
    "mixup": 2,
    "cutmix": 4,
}  # how many words one picture takes

_WHOLE_PIXELS = (Crop, Flip, VerticalFlip)
_WARPS = (TrivialAugment, ResizedCrop, Rotation)


def needs_warp(augment: Sequence[Augmentation]) -> bool:
    """Whether a recipe moves pictures by anything but whole pixels."""
    return any(isinstance(entry, _WARPS) for entry in augment)


def margin(augment: Sequence[Augmentation]) -> int:
    """How many pixels a picture is mirrored beyond its border before it is warped."""
    crops = [entry for entry in augment if isinstance(entry, Crop)]
    return sum(entry.padding for entry in crops if entry.mode == "reflect")


def parameters(entry: Augmentation, words: Words, size: Size) -> Array:
    """The parameters of one augmentation, from (R, `WORDS[name]`) words.

    `resized_crop` gives (R, 4): top, left, height and width of the box in shares of the picture.
    `rotation` gives (R,) degrees, `mixup` (R,) weights of the picture itself, `cutmix` (R, 4) top,
    left, bottom and right of the box; a picture that is to be left alone has weight 1 or no box.
    """
    match entry:
        case TrivialAugment():
            return trivial.draw(words)
        case Crop(padding=padding):
            return random_integers(words, 2 * padding + 1)
        case ResizedCrop():
            return _box(entry, words)
        case Rotation(degrees=degrees):
            return random_uniform(words[:, 0], -degrees, degrees)
        case Flip() | VerticalFlip():
            return random_integers(words[:, 0], 2)
        case ColorJitter():
            return _jitter(entry, words)
        case Cutout():
            return _place(words, size)
        case MixUp(alpha=alpha, probability=probability):
            chosen = random_uniform(words[:, 0]) < probability
            return np.where(chosen, random_beta(words[:, 1], alpha), 1)
        case CutMix():
            return _cut(entry, words, size)


def _place(words: Words, size: Size) -> NDArray[np.int32]:
    """A pixel anywhere in the picture, (R, 2), from as many words."""
    return np.stack([random_integers(words[:, axis], size[axis]) for axis in (0, 1)], axis=1)


def _box(entry: ResizedCrop, words: Words) -> Reals:
    """A box of random area, shape and place: of the shapes, those in which the area fits."""
    area = random_uniform(words[:, 0], *entry.scale)
    widest = -np.log(area)  # a whole side
    lowest, highest = (np.log(ratio).clip(-widest, widest) for ratio in entry.ratio)
    ratio = np.exp(random_uniform(words[:, 1], lowest, highest))
    height, width = np.minimum(np.sqrt([area / ratio, area * ratio]), 1)  # but for rounding
    top = random_uniform(words[:, 2]) * (1 - height)
    left = random_uniform(words[:, 3]) * (1 - width)
    return np.stack([top, left, height, width], axis=1)


def _jitter(entry: ColorJitter, words: Words) -> NDArray[np.float32]:
    even = random_uniform(words, -1, 1)
    strengths = [entry.brightness, entry.contrast, entry.saturation, entry.hue]
    return (even * strengths + [1, 1, 1, 0]).astype(np.float32)


def _cut(entry: CutMix, words: Words, size: Size) -> NDArray[np.int32]:
    """Boxes around any pixel, cut off where they hang over the edge."""
    chosen = random_uniform(words[:, 0]) < entry.probability
    side = np.where(chosen, np.sqrt(random_beta(words[:, 1], entry.alpha)), 0)[:, None]
    extent = (side * size).astype(np.int32)
    first = _place(words[:, 2:], size) - extent // 2
    return np.concatenate([first, first + extent], axis=1).clip(0, [*size, *size], dtype=np.int32)


def combine(
    augment: Sequence[Augmentation], drawn: Mapping[str, Array], size: Size
) -> dict[str, Array]:
    """What a loader is given, from the parameters of each augmentation."""
    draws = dict(drawn)
    if needs_warp(augment):
        moves = [entry for entry in augment if isinstance(entry, _WHOLE_PIXELS + _WARPS)]
        parts = [_as_map(entry, drawn[entry.name], size) for entry in moves]
        draws["warp"] = _warp(parts, margin(augment))
        for entry in moves:
            if not isinstance(entry, TrivialAugment):  # whose tones and colours are yet to come
                del draws[entry.name]
    if mixes(augment):
        draws["mixing"] = _mixing(draws.pop("mixup", 1), draws.pop("cutmix", np.zeros((1, 4))))
    return draws


def _as_map(entry: Augmentation, drawn: Array, size: Size) -> Reals:
    """One augmentation's geometry as a map."""
    match entry:
        case TrivialAugment():
            return trivial.geometry(drawn, size)
        case Crop(padding=padding):
            return affine.shift(drawn[:, 0] - padding, drawn[:, 1] - padding)
        case ResizedCrop():
            top, left, height, width = drawn.T
            return affine.box(top, left, height, width, size)
        case Rotation():
            return affine.rotation(drawn, size)
        case Flip():
            return affine.mirror(drawn, 0, size)
        case VerticalFlip():
            return affine.mirror(0, drawn, size)
        case _:
            raise TypeError(f"{entry.name} moves nothing")


def _warp(parts: Sequence[Reals], margin: int) -> NDArray[np.float32]:
    """All maps in turn as one, (R, 2, 3), into a picture that has a margin around it."""
    whole = affine.shift(margin, margin)
    for part in parts:
        whole = affine.compose(whole, part)
    return np.ascontiguousarray(whole.transpose(2, 0, 1), dtype=np.float32)


def _mixing(weights: Array | int, boxes: Array) -> NDArray[np.float32]:
    """Weight and box in one row for each picture; mix-up is left what CutMix leaves alone."""
    mixing = np.zeros((max(np.size(weights), len(boxes)), 5), dtype=np.float32)
    boxed = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    mixing[:, 0] = np.where(boxed, 1, weights)
    mixing[:, 1:] = boxes
    return mixing
