"""Warps and affine maps against torchvision's and against plain pixel moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from fasttrain.data import affine
from fasttrain.data.affine import Reals
from fasttrain.data.augment import crop, flip, warp

SIZE = (12, 16)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, *SIZE, 3), dtype=torch.uint8, generator=generator)


def warped(images: Tensor, whole: Reals, margin: int = 0) -> Tensor:
    matrix = torch.from_numpy(whole.transpose(2, 0, 1).astype(np.float32))
    return warp(images, matrix.expand(len(images), -1, -1), margin)


def test_maps_in_whole_pixels_are_exact(images: Tensor) -> None:
    ones = torch.ones(len(images))
    assert torch.equal(warped(images, affine.identity()), images)
    assert torch.equal(warped(images, affine.mirror(1, 0, SIZE)), flip(images, ones))
    assert torch.equal(warped(images, affine.mirror(0, 1, SIZE)), flip(images, ones, axis=1))
    corner = torch.tensor([[1, 5]]).expand(len(images), -1)
    assert torch.equal(warped(images, affine.shift(-2, 2)), crop(images, corner, 3, "zero"))
    framed = affine.compose(affine.shift(3, 3), affine.shift(-2, 2))
    assert torch.equal(warped(images, framed, margin=3), crop(images, corner, 3, "reflect"))


@pytest.mark.parametrize("degrees", [-120.0, -15.0, 7.5, 90.0])
def test_a_rotation_is_torchvisions(images: Tensor, degrees: float) -> None:
    found = warped(images, affine.rotation(degrees, SIZE)).permute(0, 3, 1, 2)
    expected = vision.rotate(
        images.permute(0, 3, 1, 2), degrees, interpolation=InterpolationMode.BILINEAR
    )
    assert (found.int() - expected.int()).abs().max() <= 1


def test_a_box_is_torchvisions_resized_crop_but_for_its_border(images: Tensor) -> None:
    """Torchvision cuts first, so its border repeats; here the pixels beyond the box are seen."""
    whole = affine.box(0.25, 0.125, 0.5, 0.75, SIZE)
    found = warped(images, whole).permute(0, 3, 1, 2)
    expected = vision.resized_crop(images.permute(0, 3, 1, 2), 3, 2, 6, 12, list(SIZE))
    assert (found.int() - expected.int())[..., 1:-1, 1:-1].abs().max() <= 1


def test_composed_maps_are_done_in_turn() -> None:
    """A point of the last picture is looked up through the later map first."""
    first, then = affine.shift(2, 5), affine.mirror(1, 0, SIZE)
    whole = affine.compose(first, then)[..., 0]
    point = np.array([3.5, 1.5, 1])
    assert (whole @ point).tolist() == [(16 - 3.5) + 5, 1.5 + 2]


def test_each_picture_has_its_own_map(images: Tensor) -> None:
    shifts = affine.shift(np.zeros(5), np.arange(5))
    found = warped(images, affine.compose(affine.identity(), shifts))
    for index in range(5):
        assert torch.equal(found[index, :, : 16 - index], images[index, :, index:])
        assert not found[index, :, 16 - index :].any()
