"""Attention blocks: what must be equal is equal, and every setting does what it says."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fasttrain import models
from fasttrain.config import AttentionCnnModel, CnnModel, Gate, Head, Stage

PICTURES = (4, 3, 16, 16)
SMALL = (Stage(width=8), Stage(width=16, blocks=2, pool="none"))


def settings(**changes: Any) -> AttentionCnnModel:
    return AttentionCnnModel.model_validate({"stages": SMALL, **changes})


def build(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.build(settings(**changes), classes=10)


def pictures() -> Tensor:
    images = torch.randn(PICTURES, generator=torch.Generator().manual_seed(1))
    return images.contiguous(memory_format=torch.channels_last)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """The gradient of every parameter, for logits that matter unlike each other."""
    logits = network(pictures())
    (logits * torch.linspace(-1, 1, 10)).sum().backward()
    return {name: w.grad for name, w in network.named_parameters() if w.grad is not None}


# Shapes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mix": "kernels"},
        {"mix": "kernels", "norm": "none", "kernels": [1, 3, 3]},
        {"norm": "branch", "kernels": [1, 3, 5], "dropout": 0.2},
        {"norm": "none", "activation": "none", "init": "torch"},
        {"residual": True, "squeeze_excite": 4, "stochastic_depth": 0.2, "dropout": 0.1},
        {"residual": True, "norm": "none", "activation": "silu"},
        {"residual": True, "residual_norm": True, "norm": "branch"},
        {"gate": "sigmoid", "activation": "gelu", "head": Head(pool="max", hidden=(7,))},
        {"gate": "uniform", "branches": 1},
        {"gate": "none", "branches": 5, "kernels": 1},
    ],
)
def test_logits_have_their_shape_and_every_parameter_a_gradient(changes: dict[str, Any]) -> None:
    network = build(**changes)
    assert network(pictures()).shape == (4, 10)
    found = gradients(network)
    assert found.keys() == dict(network.named_parameters()).keys()
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())


@pytest.mark.parametrize("kernels", [3, [1, 3, 5]])
def test_branches_of_one_kernel_size_are_one_convolution(kernels: Any) -> None:
    block = build(branches=3, kernels=kernels).blocks[0]
    convolutions = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    sizes = [(part.kernel_size[0], part.out_channels) for part in convolutions]
    assert sizes == ([(3, 24)] if kernels == 3 else [(1, 8), (3, 8), (5, 8)])


def test_stages_say_how_many_blocks_and_where_to_pool() -> None:
    stages = [
        {"width": 8, "blocks": 2},
        {"width": 8, "pool": "none"},
        {"width": 16, "pool": "mean"},
    ]
    network = build(stages=stages)
    images, sides = pictures(), []
    for block in network.blocks:
        images = block(images, torch.ones(()))
        sides.append(images.shape[2])
    assert sides == [16, 8, 8, 4]


def test_the_width_factor_scales_every_width_to_a_multiple_of_8() -> None:
    stages = [{"width": 96}, {"width": 160}, {"width": 20}]
    network = build(stages=stages, width_factor=0.25)
    assert [block.norm.num_features for block in network.blocks] == [24, 40, 8]
    network = build(stages=stages)
    assert [block.norm.num_features for block in network.blocks] == [96, 160, 20]


# What must be equal


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_one_branch_without_a_gate_is_a_plain_cnn(norm: Any) -> None:
    plain = models.build(CnnModel(widths=(8, 16), norm=norm), classes=10)
    network = build(
        stages=[{"width": 8}, {"width": 16}],
        branches=1,
        gate="none",
        norm="mixed" if norm == "batch" else "none",
    )
    weights = dict(
        zip(network.state_dict(), [torch.ones(()), *plain.state_dict().values()], strict=True)
    )
    assert [w.shape for w in weights.values()] == [w.shape for w in network.state_dict().values()]
    network.load_state_dict(weights)
    assert torch.equal(network(pictures()), plain(pictures()))
    ours, theirs = gradients(network).values(), gradients(plain).values()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("gate", "kernels", "norm"),
    [
        ("softmax", 3, "none"),
        ("softmax", [1, 3, 3], "mixed"),
        ("sigmoid", [3, 5, 1], "none"),
        ("uniform", 3, "none"),
        ("none", [3, 3, 5], "mixed"),
    ],
)
def test_mixing_kernels_is_mixing_outputs(gate: str, kernels: Any, norm: str) -> None:
    common = {"gate": gate, "kernels": kernels, "norm": norm}
    outputs, mixed = build(**common), build(**common, mix="kernels")
    mixed.load_state_dict(outputs.state_dict())
    models.set_temperature(outputs, 3.0)
    models.set_temperature(mixed, 3.0)
    torch.testing.assert_close(mixed(pictures()), outputs(pictures()), atol=2e-5, rtol=1e-4)
    ours, theirs = gradients(mixed), gradients(outputs)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=2e-4, rtol=1e-3)


def test_uniform_weights_are_the_mean_of_the_branches() -> None:
    network = build(stages=[{"width": 8, "pool": "none"}], gate="uniform", norm="none")
    (block,) = network.blocks
    outputs = block.branches[0].convolution(pictures())
    mean = torch.stack(outputs.chunk(3, dim=1)).mean(dim=0)
    torch.testing.assert_close(block(pictures(), torch.ones(())), torch.relu(mean))


def test_a_branch_of_its_own_norm_is_finished_before_it_is_weighted() -> None:
    stages = [{"width": 8, "pool": "none"}]
    (block,) = build(stages=stages, norm="branch", kernels=[3, 1, 3]).blocks
    weights = block.gate(pictures(), torch.ones(()))
    total = torch.zeros(4, 8, 16, 16)
    for part, at in zip(block.branches, [slice(0, 1), slice(1, 3)], strict=True):
        finished = torch.relu(part.after[0](part.convolution(pictures())))
        for branch, weight in zip(finished.split(8, dim=1), weights[:, at].T, strict=True):
            total += branch * weight[:, None, None, None]
    torch.testing.assert_close(block(pictures(), torch.ones(())), total)


def test_a_residual_block_adds_its_input() -> None:
    stages = [{"width": 8, "pool": "none", "blocks": 2}]
    plain, residual = build(stages=stages).blocks[1], build(stages=stages, residual=True).blocks[1]
    residual.load_state_dict(plain.state_dict())
    images, one = torch.randn(4, 8, 16, 16), torch.ones(())
    torch.testing.assert_close(residual(images, one), images + plain(images, one))


def test_what_a_block_with_a_residual_norm_adds_has_mean_zero_and_variance_one() -> None:
    stages = [{"width": 8, "pool": "none", "blocks": 2}]
    settings = {"stages": stages, "norm": "branch", "residual": True}
    images, one = torch.randn(4, 8, 16, 16), torch.ones(())
    added = build(**settings).blocks[1](images, one) - images
    assert (added >= 0).all()  # what the norm is for
    added = build(**settings, residual_norm=True).blocks[1](images, one) - images
    torch.testing.assert_close(added.mean(dim=(0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        added.var(dim=(0, 2, 3), correction=0), torch.ones(8), rtol=0, atol=1e-2
    )


# Learning


@pytest.mark.parametrize("norm", ["none", "branch", "mixed"])
@pytest.mark.parametrize("gate", ["softmax", "sigmoid", "uniform", "none"])
def test_the_gradient_reaches_every_branch(norm: str, gate: str) -> None:
    network = build(norm=norm, gate=gate)
    found = gradients(network)
    for block in range(3):
        kernels = found[f"blocks.{block}.branches.0.convolution.weight"].chunk(3)
        assert all(float(kernel.abs().max()) > 0 for kernel in kernels)


def test_heat_gives_branches_near_equal_gradients() -> None:
    hot, cold = build(norm="none"), build(norm="none")
    for network, temperature in ((hot, 1e6), (cold, 1e-3)):
        models.set_temperature(network, temperature)
    name = "blocks.0.branches.0.convolution.bias"
    spread = [
        [float(part.norm()) for part in gradients(network)[name].chunk(3)]
        for network in (hot, cold)
    ]
    assert max(spread[0]) == pytest.approx(min(spread[0]), rel=1e-3)
    assert max(spread[1]) > 1.2 * min(spread[1])


@pytest.mark.parametrize("gate", ["softmax", "sigmoid", "uniform", "none"])
@pytest.mark.parametrize("branches", [1, 8])
def test_the_first_signal_neither_fades_nor_grows_whatever_the_branches(
    gate: Any, branches: int
) -> None:
    torch.manual_seed(0)
    model = AttentionCnnModel(
        stages=(Stage(width=64, blocks=6, pool="none"),),
        branches=branches,
        gate=Gate(name=gate),
        norm="none",
    )
    network = models.build(model, 10)
    models.set_temperature(network, 30.0)
    images = torch.randn(8, 3, 16, 16)
    for block in network.blocks:
        images = block(images, network.temperature)
    assert 0.2 < images.square().mean().item() < 5


# Chance


def test_dropout_and_stochastic_depth_are_off_in_evaluation() -> None:
    network = build(
        dropout=0.5, residual=True, stochastic_depth=0.5, head=Head(dropout=0.5), norm="none"
    )
    assert not torch.equal(network(pictures()), network(pictures()))
    network.eval()
    assert torch.equal(network(pictures()), network(pictures()))


def test_stochastic_depth_grows_with_the_depth() -> None:
    blocks = build(residual=True, stochastic_depth=0.3).blocks
    rates = [block.stochastic_depth.rate for block in blocks]
    assert rates == pytest.approx([0.1, 0.2, 0.3])


# Temperature


def test_the_temperature_is_saved_with_the_weights() -> None:
    network = build()
    models.set_temperature(network, 7.0)
    other = build()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.eval()(pictures()), network.eval()(pictures()))


def test_a_network_without_gates_has_no_temperature_to_set() -> None:
    network = models.build(CnnModel(), 10)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    models.set_temperature(network, 7.0)
    for (name, weight), old in itertools.zip_longest(network.state_dict().items(), before.values()):
        assert torch.equal(weight, old), name
