"""Mix-up and CutMix: what is drawn, what becomes of pictures and labels, on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fasttrain.config import CutMix, MixUp
from fasttrain.data.draws import parameters
from fasttrain.data.mixing import label_weights, mix, swap
from fasttrain.data.plan import Shard, TrainingPlan
from fasttrain.data.randomness import random_beta, random_words

SIZE = (8, 10)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(4, 3, *SIZE, generator=generator)
    return pictures.to(memory_format=torch.channels_last)


def rows(*values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 10.0])
def test_beta_numbers_have_the_moments_of_their_distribution(alpha: float) -> None:
    drawn = random_beta(random_words(0, "beta", 0, 200_000), alpha)
    assert 0 <= drawn.min() < drawn.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    kurtosis = 3 * (2 * alpha + 1) / (2 * alpha + 3)  # the fourth moment over the square
    assert drawn.mean() == pytest.approx(0.5, abs=5e-3)
    assert drawn.var() == pytest.approx(variance, rel=0.02)
    assert ((drawn - 0.5) ** 4).mean() / variance**2 == pytest.approx(kurtosis, rel=0.03)


def test_beta_of_one_is_even() -> None:
    words = random_words(0, "beta", 0, 1000)
    even = (words >> np.uint64(11)) * 2.0**-53
    assert random_beta(words, 1.0) == pytest.approx(even, abs=1e-12)


def test_mixup_blends_each_picture_with_its_neighbour(images: Tensor) -> None:
    mixed = mix(images, rows(*[(weight, 0, 0, 0, 0) for weight in (0.7, 0.4, 1.0, 0.0)]))
    assert torch.allclose(mixed[0], 0.7 * images[0] + 0.3 * images[1])
    assert torch.allclose(mixed[1], 0.4 * images[1] + 0.6 * images[0])
    assert torch.equal(mixed[2], images[2])
    assert torch.equal(mixed[3], images[2])
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_cutmix_fills_a_box_with_the_neighbour(images: Tensor) -> None:
    mixing = rows((1, 2, 3, 5, 10), (1, 0, 0, 0, 0), (1, 0, 0, 8, 10), (1, 7, 9, 8, 10))
    mixed = mix(images, mixing)
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[2:5, 3:10] = True
    assert torch.equal(mixed[0], torch.where(inside, images[1], images[0]))
    assert torch.equal(mixed[1], images[1])
    assert torch.equal(mixed[2], images[3])
    assert (mixed[3] != images[3]).any(dim=0).sum() == 1
    expected = [1 - 21 / 80, 1.0, 0.0, 1 - 1 / 80]
    assert label_weights(mixing, *SIZE).tolist() == pytest.approx(expected)


def test_partners_are_exchanged_in_pairs() -> None:
    assert swap(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]


def test_boxes_are_cut_off_at_the_edge_and_have_the_share_they_should() -> None:
    words = random_words(0, "test", 0, 80_000).reshape(20_000, 4)
    boxes = parameters(CutMix(probability=1.0), words, (100, 200))
    top, left, bottom, right = boxes.T
    assert min(top.min(), left.min()) == 0
    assert (bottom.max(), right.max()) == (100, 200)
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    within = (top > 0) & (left > 0) & (bottom < 100) & (right < 200)
    height, width = (bottom - top)[within], (right - left)[within]
    assert abs(height / 100 - width / 200).max() <= 0.01


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_the_share_of_pictures_that_are_mixed(probability: float) -> None:
    mixup, cutmix = MixUp(probability=probability), CutMix(probability=probability)
    weights = parameters(mixup, random_words(0, "a", 0, 20_000).reshape(-1, 2), SIZE)
    boxes = parameters(cutmix, random_words(0, "b", 0, 40_000).reshape(-1, 4), (320, 320))
    assert (weights < 1).mean() == pytest.approx(probability, abs=0.02)
    assert (boxes[:, 2] > boxes[:, 0]).mean() == pytest.approx(probability, abs=0.02)


def test_a_picture_is_blended_or_cut_but_not_both() -> None:
    recipe = (MixUp(), CutMix())
    mixing = TrainingPlan(np.arange(2000), 2000, 0, recipe, (32, 32)).batch(0).draws["mixing"]
    boxed = (mixing[:, 3:] > mixing[:, 1:3]).all(axis=1)
    assert 0.4 < boxed.mean() < 0.6
    assert (mixing[boxed, 0] == 1).all()
    assert (mixing[~boxed, 0] < 1).all()


@pytest.mark.parametrize("world", [2, 4])
def test_the_number_of_ranks_changes_no_picture(world: int) -> None:
    plan = TrainingPlan(np.arange(40), 16, 5, (MixUp(), CutMix()), SIZE)
    pixels = torch.rand(40, 3, *SIZE)

    def mixed(shard: Shard) -> Tensor:
        batch = plan.batch(3, shard)
        return mix(pixels[batch.indices], torch.from_numpy(batch.draws["mixing"]))

    parts = [mixed(Shard(rank, world)) for rank in range(world)]
    assert torch.equal(torch.cat(parts), mixed(Shard()))
