"""The parts that families share, each against torch's own or its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.models.blocks import (
    GhostBatchNorm2d,
    Head,
    Pool,
    SqueezeExcite,
    StochasticDepth,
    activation,
    dropout,
)
from fasttrain.training.step import _ON_GPU


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


def norms(ghost_batch: int) -> tuple[GhostBatchNorm2d, nn.BatchNorm2d]:
    """Ours, and torch's own with the same parameters."""
    ghost, plain = GhostBatchNorm2d(3, ghost_batch, 0.3), nn.BatchNorm2d(3, momentum=0.3)
    with torch.no_grad():
        ghost.weight.normal_()
        ghost.bias.normal_()
    plain.load_state_dict(ghost.state_dict())
    return ghost, plain


def channels_last(count: int) -> Tensor:
    images = 2 * torch.randn(count, 3, 5, 4) + 1
    return images.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize(("count", "ghost_batch"), [(12, 4), (12, 6), (12, 12), (4, 6)])
def test_every_ghost_batch_is_a_batch_to_batch_norm(count: int, ghost_batch: int) -> None:
    torch.manual_seed(0)
    ghost, plain = norms(ghost_batch)
    images, twins = (channels_last(count) for _ in range(2))
    twins.data.copy_(images.data)
    slopes = torch.randn(count, 3, 5, 4)
    for _ in range(2):  # running statistics that are not those of a start
        found = ghost(images)
        wanted = torch.cat([plain(part) for part in twins.split(ghost_batch)])
    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)
    (found * slopes).sum().backward()
    (wanted * slopes).sum().backward()
    torch.testing.assert_close(images.grad, twins.grad)
    torch.testing.assert_close(ghost.weight.grad, plain.weight.grad)
    torch.testing.assert_close(ghost.bias.grad, plain.bias.grad)
    torch.testing.assert_close(ghost.state_dict(), plain.state_dict())
    torch.testing.assert_close(ghost.eval()(images), plain.eval()(images))


def test_half_precision_goes_through_ghost_batches_as_through_batch_norm() -> None:
    ghost, plain = norms(4)
    images = channels_last(8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = ghost(images), torch.cat([plain(part) for part in images.split(4)])
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(ghost.state_dict(), plain.state_dict())  # whole precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_traced_ghost_batches_have_their_own_gradients(dtype: torch.dtype) -> None:
    """torch 2.11 traced functions that return what `to` leaves as it is without their gradient."""
    torch.compiler.reset()
    ghost, _ = norms(4)
    images, slopes = channels_last(8).detach().to(dtype), torch.randn(8, 3, 5, 4)
    gradients = []
    for way in (ghost, torch.compile(ghost, dynamic=False, backend="eager")):
        ghost.zero_grad()
        leaf = images.clone().requires_grad_()
        (way(leaf) * slopes).sum().backward()
        gradients.append((leaf.grad, ghost.weight.grad, ghost.bias.grad))
    torch.testing.assert_close(*gradients)


@pytest.mark.gpu
def test_ghost_batches_on_a_gpu() -> None:
    ghost, plain = (each.cuda() for each in norms(4))
    images, twins = (channels_last(8).detach().cuda().requires_grad_() for _ in range(2))
    twins.data.copy_(images.data)
    slopes = channels_last(8).detach().cuda()
    found = torch.compile(ghost, dynamic=False, options=dict(_ON_GPU))(images)
    wanted = torch.cat([plain(part) for part in twins.split(4)])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    (found * slopes).sum().backward()
    (wanted * slopes).sum().backward()
    for own, their in ((images, twins), (ghost.weight, plain.weight), (ghost.bias, plain.bias)):
        torch.testing.assert_close(own.grad, their.grad, rtol=1e-3, atol=1e-4)


def test_a_ghost_batch_that_is_cut_off_is_refused() -> None:
    ghost, _ = norms(4)
    with pytest.raises(ValueError, match="10 pictures are no whole number of ghost batches of 4"):
        ghost(channels_last(10))
    assert ghost.eval()(channels_last(10)).shape == (10, 3, 5, 4)
