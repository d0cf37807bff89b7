"""The generated set: the same everywhere, balanced, and out of a linear model's reach."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fasttrain.data import shapes
from fasttrain.data.shapes import CLASSES, ShapesSource, generate
from fasttrain.data.store import Split


@pytest.fixture(scope="module")
def train() -> Split:
    return generate(4000, seed=0)


@pytest.fixture(scope="module")
def test() -> Split:
    return generate(1000, seed=1)


@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (0, "5bfe817b0ff9f7d4d71129b39137e5d26bc4d4467a0ca215ecf0c9416b0852b8"),
        (1, "d57f632f9006d313834bd9cc7469f0c05a57ec6e997794d0077c40e7addc5bbc"),
    ],
)
def test_pictures_are_the_same_everywhere(seed: int, digest: str) -> None:
    assert hashlib.sha256(generate(10, seed).images.tobytes()).hexdigest() == digest


def test_a_picture_does_not_depend_on_how_many_are_drawn(train: Split) -> None:
    few = generate(507, seed=0)
    assert np.array_equal(few.images, train.images[:507])
    assert np.array_equal(few.labels, train.labels[:507])


def test_form(train: Split) -> None:
    assert train.images.shape == (4000, 32, 32, 3)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64


def test_classes_are_balanced(train: Split) -> None:
    assert len(CLASSES) == 10
    assert np.bincount(train.labels).tolist() == [400] * 10


def test_no_picture_stands_twice(train: Split, test: Split) -> None:
    pictures = [image.tobytes() for split in (train, test) for image in split.images]
    assert len(set(pictures)) == len(pictures) == 5000


def test_no_shape_is_hidden_or_out_of_sight() -> None:
    dice = shapes._Dice(seed=0, block=0)
    shape, occluder = shapes._shape_cover(dice), shapes._occluder_cover(dice)
    area = shape.sum(axis=(1, 2, 3))
    visible = (shape * (1 - occluder)).sum(axis=(1, 2, 3)) / area
    assert area.min() > 100  # of 1024 pixels
    assert visible.min() > 0.5


def test_colour_says_nothing(train: Split, test: Split) -> None:
    """The mean colour of a picture's corners, where its ground shows, names no class."""
    corners = [split.images[:, [0, 0, 31, 31], [0, 31, 0, 31]] for split in (train, test)]
    assert _linear_accuracy(*(c.reshape(len(c), -1) for c in corners), train, test) < 0.17


def test_a_linear_model_stays_below_60_percent(train: Split, test: Split) -> None:
    pixels = [split.images.reshape(len(split.images), -1) for split in (train, test)]
    accuracy = _linear_accuracy(*pixels, train, test)
    assert 0.2 < accuracy < 0.6  # above chance, so the model did learn what it could


def _linear_accuracy(
    inputs: np.ndarray, held_out: np.ndarray, train: Split, test: Split, passes: int = 8
) -> float:
    """Test accuracy of multinomial logistic regression, trained by plain gradient descent."""
    x, x_test = (torch.from_numpy(part).float() / 128 - 1 for part in (inputs, held_out))
    y = torch.from_numpy(train.labels)
    generator = torch.Generator().manual_seed(0)
    weights = torch.zeros(x.shape[1], 10, requires_grad=True)
    optimiser = torch.optim.SGD([weights], lr=0.003, momentum=0.9)
    for _ in range(passes):
        for rows in torch.randperm(len(x), generator=generator).split(100):
            optimiser.zero_grad()
            F.cross_entropy(x[rows] @ weights, y[rows]).backward()
            optimiser.step()
    predicted = (x_test @ weights).argmax(dim=1).numpy()
    return float((predicted == test.labels).mean())


def test_the_source_draws_two_different_splits_and_reports() -> None:
    reports: list[tuple[str, int, int]] = []
    classes, splits = ShapesSource(1000, 500).read(lambda *report: reports.append(report))
    assert classes == CLASSES
    assert [len(splits["train"].images), len(splits["test"].images)] == [1000, 500]
    assert not np.array_equal(splits["train"].images[:500], splits["test"].images)
    assert [report[1:] for report in reports] == [(500, 1000), (1000, 1000), (500, 500)]


def test_the_key_follows_the_arguments() -> None:
    assert ShapesSource(10, 10).key() == ShapesSource(10, 10).key() != ShapesSource(10, 20).key()
