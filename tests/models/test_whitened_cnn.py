"""A first layer that whitens, convolutions that start as the identity."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from fasttrain import config, models
from fasttrain.config import AttentionCnnModel, CnnModel, Model, WhitenedCnnModel
from fasttrain.errors import UserError
from fasttrain.models.summary import summarize
from fasttrain.models.whitening import Whitening
from fasttrain.training import optim


def smooth(count: int) -> torch.Tensor:
    """Pictures whose neighbouring pixels and channels are alike."""
    noise = torch.randn(count, 3, 34, 34, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise, 3, stride=1) + noise[:, :1, 1:-1, 1:-1] / 3


def test_whitened_patches_have_unit_variance_and_nothing_in_common() -> None:
    layer, images = Whitening(config.Whitening(epsilon=1e-9)), smooth(600)
    layer.look_at(images.split(250))
    found = layer(images).movedim(1, -1).flatten(0, 2)
    half = layer.outputs // 2
    covariance = found[:, :half].T @ found[:, :half] / len(found)
    torch.testing.assert_close(covariance, torch.eye(half), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[:, half:], -found[:, :half])


def test_epsilon_keeps_small_variances_small() -> None:
    images = smooth(100)
    variances = []
    for epsilon in (1e-9, 1.0):
        layer = Whitening(config.Whitening(epsilon=epsilon))
        layer.look_at([images])
        variances.append(layer(images).var(dim=(0, 2, 3)))
    assert (variances[1] < variances[0]).all()


def test_pictures_without_colour_can_be_whitened_however_small_the_epsilon() -> None:
    layer, grey = Whitening(config.Whitening(epsilon=1e-20)), torch.randn(50, 1, 16, 16)
    layer.look_at([grey.expand(-1, 3, -1, -1)])
    assert layer.weight.isfinite().all()


def test_whitening_is_not_trained_but_saved() -> None:
    network = models.build(WhitenedCnnModel(), 10)
    models.look_at(network, [smooth(10)])
    trained = dict(network.named_parameters())
    assert "whitening.bias" in trained
    assert "whitening.weight" not in trained
    assert "whitening.weight" in network.state_dict()
    assert optim.build(optim.config.Muon(), network).state_dict().keys() == {"muon", "sgd"}


@pytest.mark.parametrize("settings", [CnnModel(), AttentionCnnModel(stages=({"width": 8},))])
def test_networks_that_whiten_nothing_look_at_nothing(settings: Model) -> None:
    def pictures() -> Iterator[torch.Tensor]:
        raise AssertionError("they need no pictures")
        yield

    models.look_at(models.build(settings, 10), pictures())


def test_dirac_passes_the_first_channels_on() -> None:
    network = models.build(WhitenedCnnModel(widths=(64,)), 10)
    first = network.groups[0].convolutions[0]
    images = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(first(images)[:, :24], images)
    assert first.weight[24:].std() > 0


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("convolutions", [1, 2, 3])
def test_every_group_halves_the_sides(convolutions: int, residual: bool) -> None:
    model = WhitenedCnnModel(widths=(8, 16), convolutions=convolutions, residual=residual)
    network = models.build(model, 7)
    images = torch.randn(2, 3, 32, 32)
    assert network(images).shape == (2, 7)
    assert network.groups(torch.randn(2, 24, 31, 31)).shape == (2, 16, 7, 7)


def test_smaller_pictures_do_too() -> None:
    network = models.build(WhitenedCnnModel(), 10)
    assert network(torch.randn(2, 3, 24, 24)).shape == (2, 10)


def test_the_94_percent_network_has_the_papers_size() -> None:
    summary = summarize(WhitenedCnnModel(), 10, (32, 32))
    assert round(summary.parameters / 1e6, 2) == 1.97  # arXiv 2404.00498, section 3.1
    assert 1.1e8 < summary.multiply_adds < 1.3e8


def test_without_a_bias_nothing_ahead_of_the_convolutions_is_trained() -> None:
    for bias in (True, False):
        network = models.build(WhitenedCnnModel(whitening={"bias": bias}), 10)
        assert ("whitening.bias" in dict(network.named_parameters())) is bias
        assert network.whitening(torch.randn(2, 3, 8, 8)).requires_grad is bias


def test_attention_blocks_can_stand_behind_a_whitening() -> None:
    settings = AttentionCnnModel(whitening={"patch": 3}, stages=({"width": 8},))
    network = models.build(settings, 10)
    before = network.whitening.weight.clone()
    models.look_at(network, [smooth(10)])
    assert not torch.equal(network.whitening.weight, before)
    assert network.blocks[0].gate.linear.in_features == network.whitening.outputs == 54
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_pixels_that_the_patches_take_are_missing_for_pooling() -> None:
    stages = tuple({"width": 8} for _ in range(3))
    models.check(AttentionCnnModel(stages=stages), (8, 8))
    with pytest.raises(UserError, match="2 times is the most"):
        models.check(AttentionCnnModel(stages=stages, whitening={}), (8, 8))
    with pytest.raises(UserError, match="choose a smaller patch"):
        models.check(WhitenedCnnModel(whitening={"patch": 7}), (6, 6))
