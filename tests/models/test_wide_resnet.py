"""Wide residual networks against the figures of their paper."""

from __future__ import annotations

import torch

from fasttrain import models
from fasttrain.config import WideResnetModel
from fasttrain.models.summary import summarize


def test_wrn_28_10_has_the_papers_parameters_and_multiply_adds() -> None:
    summary = summarize(WideResnetModel(depth=28, widen=10), 10, (32, 32))
    assert summary.parameters == 36_479_194  # 36.5 M, table 4
    assert 5.2e9 < summary.multiply_adds < 5.3e9


def test_wrn_16_8_is_as_large_as_in_the_paper() -> None:
    summary = summarize(WideResnetModel(depth=16, widen=8), 10, (32, 32))
    assert round(summary.parameters / 1e6, 1) == 11.0


def test_a_small_one_maps_pictures_to_logits_and_drops_out_only_in_training() -> None:
    network = models.build(WideResnetModel(depth=10, widen=1, dropout=0.5), 7)
    images = torch.randn(2, 3, 32, 32)
    assert network(images).shape == (2, 7)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_the_second_and_third_group_halve_the_sides() -> None:
    network = models.build(WideResnetModel(depth=16, widen=1), 10)
    images, sides = network.stem(torch.randn(1, 3, 32, 32)), []
    for block in network.blocks:
        images = block(images)
        sides.append((images.shape[1], images.shape[2]))
    assert sides == [(16, 32)] * 2 + [(32, 16)] * 2 + [(64, 8)] * 2
