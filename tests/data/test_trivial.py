"""TrivialAugment's operations against torchvision's own, at torchvision's own strengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import TrivialAugmentWide

from fasttrain.config import ColorJitter, Flip, TrivialAugment
from fasttrain.data import trivial
from fasttrain.data.affine import Size
from fasttrain.data.augment import Transform
from fasttrain.data.draws import combine
from fasttrain.data.plan import TrainingPlan
from fasttrain.data.randomness import random_words
from fasttrain.data.trivial import LEVELS, Op

SIZE = (32, 40)
NAMES = {
    Op.IDENTITY: "Identity",
    Op.SHEAR_X: "ShearX",
    Op.SHEAR_Y: "ShearY",
    Op.TRANSLATE_X: "TranslateX",
    Op.TRANSLATE_Y: "TranslateY",
    Op.ROTATE: "Rotate",
    Op.BRIGHTNESS: "Brightness",
    Op.COLOR: "Color",
    Op.CONTRAST: "Contrast",
    Op.SHARPNESS: "Sharpness",
    Op.POSTERIZE: "Posterize",
    Op.SOLARIZE: "Solarize",
    Op.AUTO_CONTRAST: "AutoContrast",
    Op.EQUALIZE: "Equalize",
}
# In grey levels. Torchvision cuts fractions off where they are rounded here, and for colour and
# contrast those of the grey as well; interpolations add up in another order. The rest are the
# same bits.
TOLERANCE = {
    Op.SHEAR_X: 1,
    Op.SHEAR_Y: 1,
    Op.ROTATE: 1,
    Op.BRIGHTNESS: 1,
    Op.COLOR: 2,
    Op.CONTRAST: 2,
    Op.SHARPNESS: 1,
    Op.AUTO_CONTRAST: 1,
}
LEVELS_TRIED = (-30, -21, -7, 0, 4, 13, 30)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Smooth pictures in all kinds of light; one is flat, one nearly."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(12, 3, 5, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)
    light = torch.linspace(0.2, 1, 12)[:, None, None, None]
    pictures = (255 * (light * smooth + 0.3 * (1 - light))).to(torch.uint8)
    pictures[0], pictures[1, :, 1:] = 77, 200
    return pictures.permute(0, 2, 3, 1).contiguous()


def changed(images: Tensor, op: Op, level: int) -> Tensor:
    drawn = np.tile(np.array([[op, level]], dtype=np.int32), (len(images), 1))
    recipe = (TrivialAugment(),)
    draws = combine(recipe, {"trivial_augment": drawn}, SIZE)
    tensors = {name: torch.from_numpy(values) for name, values in draws.items()}
    return Transform(recipe, (0.0,) * 3, (1.0,) * 3).change(images, tensors)


def torchvisions(images: Tensor, op: Op, level: int) -> Tensor:
    """Torchvision's own table of strengths and choice of function; it offers no public way in."""
    space, signed = TrivialAugmentWide._AUGMENTATION_SPACE[NAMES[op]]
    strengths = space(LEVELS + 1, *SIZE)
    strength = 0.0 if strengths is None else float(strengths[abs(level)])
    augment = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    result: Tensor = augment._apply_image_or_video_transform(
        images.permute(0, 3, 1, 2),
        NAMES[op],
        -strength if signed and level < 0 else strength,
        interpolation=InterpolationMode.BILINEAR,
        fill={},
    )
    return result.permute(0, 2, 3, 1)


@pytest.mark.parametrize("op", Op, ids=lambda op: op.name.lower())
def test_an_operation_is_torchvisions(images: Tensor, op: Op) -> None:
    for level in LEVELS_TRIED:
        found, expected = changed(images, op, level), torchvisions(images, op, level)
        assert (found.int() - expected.int()).abs().max() <= TOLERANCE.get(op, 0), level


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (5, 2)])
def test_a_picture_that_is_all_border_is_not_sharpened(images: Tensor, size: Size) -> None:
    tiny = images[:, : size[0], : size[1]].contiguous()
    assert torch.equal(changed(tiny, Op.SHARPNESS, LEVELS), tiny)
    assert torch.equal(torchvisions(tiny, Op.SHARPNESS, LEVELS), tiny)


def test_every_operation_and_level_is_drawn_about_as_often() -> None:
    drawn = trivial.draw(random_words(0, "test", 0, 3 * 42_000).reshape(-1, 3))
    operations = np.bincount(drawn[:, 0], minlength=14)
    levels = np.bincount(drawn[:, 1] + LEVELS, minlength=61)
    assert abs(operations - 3000).max() < 250
    assert abs(np.delete(levels, LEVELS) - 42_000 / 62).max() < 130
    assert abs(levels[LEVELS] - 42_000 / 31) < 180  # no level has two signs


def test_it_is_done_before_all_else_and_once() -> None:
    """The plan's draws with and without other augmentations are the same."""
    alone = TrainingPlan(np.arange(60), 20, 1, (TrivialAugment(),), SIZE).epoch(2).draws
    recipe = (TrivialAugment(), Flip(), ColorJitter())
    joined = TrainingPlan(np.arange(60), 20, 1, recipe, SIZE).epoch(2).draws
    assert np.array_equal(alone["trivial_augment"], joined["trivial_augment"])
    flips = TrainingPlan(np.arange(60), 20, 1, (Flip(),), SIZE).epoch(2).draws["flip"]
    signs = np.where(flips == 1, -1, 1)
    assert np.allclose(joined["warp"][:, 0, 0], alone["warp"][:, 0, 0] * signs)


def test_a_jitter_after_it_turns_about_the_grey_that_it_left(images: Tensor) -> None:
    """Brightness, then contrast to nothing: a flat picture of the brightened mean grey."""
    drawn = np.tile(np.array([[Op.BRIGHTNESS, -15]], dtype=np.int32), (len(images), 1))
    recipe = (TrivialAugment(), ColorJitter())
    flat = np.tile(np.array([[1, 0, 1, 0]], dtype=np.float32), (len(images), 1))
    draws = combine(recipe, {"trivial_augment": drawn, "color_jitter": flat}, SIZE)
    tensors = {name: torch.from_numpy(values) for name, values in draws.items()}
    found = Transform(recipe, (0.0,) * 3, (1.0,) * 3).change(images, tensors)
    grey = images.float().mean(dim=(1, 2)) @ torch.tensor([0.299, 0.587, 0.114])
    assert (found.float() - 0.505 * grey[:, None, None, None]).abs().max() <= 0.51
