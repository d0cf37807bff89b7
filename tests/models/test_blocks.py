"""The parts that families share, each against torch's own or its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fasttrain.models.blocks import Head, Pool, SqueezeExcite, StochasticDepth, activation, dropout


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_pooling_is_torchs_own(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    assert torch.equal(Pool("max")(images), F.max_pool2d(images, 2))
    assert torch.equal(Pool("mean")(images), F.avg_pool2d(images, 2))
    assert Pool("none")(images) is images


@pytest.mark.parametrize(
    ("name", "torchs"),
    [("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu), ("none", lambda values: values)],
)
def test_activations_are_torchs_own(name: str, torchs: object) -> None:
    values = torch.randn(100)
    assert callable(torchs)
    assert torch.equal(activation(name)(values), torchs(values))


def test_stochastic_depth_keeps_or_drops_whole_pictures_and_the_mean() -> None:
    torch.manual_seed(0)
    layer = StochasticDepth(0.25)
    kept = layer(torch.ones(4000, 2, 3, 3))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(kept.amin(dim=(1, 2, 3)), kept.amax(dim=(1, 2, 3)))
    assert kept.mean().item() == pytest.approx(1, abs=0.03)
    images = torch.randn(5, 2, 3, 3)
    assert layer.eval()(images) is images


@pytest.mark.parametrize("of", ["values", "channels"])
def test_dropout_zeroes_values_or_channels_and_keeps_the_mean(of: str) -> None:
    torch.manual_seed(0)
    layer = dropout(0.25, of)
    kept = layer(torch.ones(400, 10, 3, 3))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert kept.mean().item() == pytest.approx(1, abs=0.03)
    whole = bool((kept.amin(dim=(2, 3)) == kept.amax(dim=(2, 3))).all())
    assert whole == (of == "channels")
    assert isinstance(dropout(0.0, of), torch.nn.Identity)


def test_squeeze_and_excite_scales_channels_by_sigmoids_of_their_means() -> None:
    layer = SqueezeExcite(8, reduction=4)
    assert (layer.squeeze.out_features, layer.excite.out_features) == (2, 8)
    images = torch.randn(3, 8, 5, 5)
    hidden = torch.relu(layer.squeeze(images.mean(dim=(2, 3))))
    scale = torch.sigmoid(layer.excite(hidden))
    torch.testing.assert_close(layer(images), images * scale[..., None, None])


def test_a_reduction_beyond_the_width_leaves_one_unit() -> None:
    assert SqueezeExcite(4, reduction=64).squeeze.out_features == 1


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_head_pools_and_then_connects_fully(pool: str) -> None:
    head = Head(6, 10, pool, hidden=(5, 4), activate="relu", drop=0.5).eval()
    images = torch.randn(3, 6, 4, 4)
    values = images.mean(dim=(2, 3)) if pool == "mean" else images.amax(dim=(2, 3))
    first, second, last = (head.layers[at] for at in (0, 2, 5))
    values = last(torch.relu(second(torch.relu(first(values)))))
    torch.testing.assert_close(head(images), values)
