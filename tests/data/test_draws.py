"""What is drawn for each augmentation, and that one leaves the others' draws alone."""

from __future__ import annotations

import numpy as np
import pytest

from fasttrain.config import (
    Augmentation,
    ColorJitter,
    Crop,
    Cutout,
    Flip,
    ResizedCrop,
    Rotation,
    VerticalFlip,
)
from fasttrain.data.draws import combine, parameters
from fasttrain.data.plan import TrainingPlan
from fasttrain.data.randomness import random_uniform, random_words

SIZE = (32, 48)


def words(count: int, each: int) -> np.ndarray:
    return random_words(1, "test", 0, count * each).reshape(count, each)


def plan(*augment: Augmentation, seed: int = 3) -> TrainingPlan:
    return TrainingPlan(np.arange(200), 50, seed, augment, SIZE)


def test_even_numbers_fill_their_range_and_never_reach_its_end() -> None:
    drawn = random_uniform(words(10_000, 1)[:, 0], -2, 3)
    assert -2 <= drawn.min() < -1.99
    assert 2.99 < drawn.max() < 3
    assert abs(drawn.mean() - 0.5) < 0.05
    assert random_uniform(np.array([2**64 - 1], dtype=np.uint64))[0] < 1


def test_adding_an_augmentation_changes_no_other_draw() -> None:
    few = plan(Flip(), Cutout()).batch(5)
    more = plan(Crop(), Flip(), VerticalFlip(), ColorJitter(), Cutout()).batch(5)
    assert np.array_equal(few.indices, more.indices)
    for name in few.draws:
        assert np.array_equal(few.draws[name], more.draws[name])


def test_a_warp_holds_the_same_crop_and_flip_as_whole_pixels_do() -> None:
    """A whole turn is none: what is left are the shift and the mirror image."""
    exact = plan(Crop(padding=4), Flip()).epoch(0).draws
    angles = np.zeros(200)
    drawn = {"crop": exact["crop"], "rotation": angles, "flip": exact["flip"]}
    warp = combine((Crop(padding=4), Rotation(), Flip()), drawn, SIZE)["warp"]
    for row in range(20):
        (top, left), mirrored = exact["crop"][row] - 4, exact["flip"][row]
        across = [-1, 0, left + SIZE[1]] if mirrored else [1, 0, left]
        assert warp[row].tolist() == [across, [0, 1, top]]


def test_a_box_lies_in_the_picture_and_has_the_area_and_shape_it_should() -> None:
    entry = ResizedCrop(scale=(0.2, 0.6), ratio=(0.5, 2.0))
    top, left, height, width = parameters(entry, words(5000, 4), SIZE).T
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= 1
    whole = (height == 1) | (width == 1)  # a side was too long
    area, ratio = (height * width)[~whole], (width / height)[~whole]
    assert 0.2 <= area.min() < 0.21
    assert area.max() <= 0.6
    assert 0.5 <= ratio.min() < 0.51
    assert 1.99 < ratio.max() <= 2
    assert abs(np.log(ratio).mean()) < 0.05


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (1 / 4, 4), (2, 3)])
def test_a_large_box_takes_a_shape_in_which_its_area_fits(ratio: tuple[float, float]) -> None:
    entry = ResizedCrop(scale=(0.8, 1.0), ratio=ratio)
    top, left, height, width = parameters(entry, words(20_000, 4), SIZE).T
    area = height * width
    assert min(area.min() - 0.8, top.min(), left.min()) >= -1e-12
    assert max((top + height).max(), (left + width).max(), area.max()) <= 1
    assert abs(area.mean() - 0.9) < 0.002


def test_rotations_are_even_to_both_sides() -> None:
    degrees = parameters(Rotation(degrees=20), words(5000, 1), SIZE)
    assert -20 <= degrees.min() < -19.9
    assert 19.9 < degrees.max() < 20


def test_jitter_is_around_no_change() -> None:
    entry = ColorJitter(brightness=0.1, contrast=0.2, saturation=0, hue=0.3)
    drawn = parameters(entry, words(5000, 4), SIZE)
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    assert low == pytest.approx([0.9, 0.8, 1, -0.3], abs=1e-3)
    assert high == pytest.approx([1.1, 1.2, 1, 0.3], abs=1e-3)
