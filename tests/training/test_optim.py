"""Every optimiser is torch's own, step for step, and each parameter goes to the right one."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from fasttrain import models
from fasttrain.config import Config, Optim
from fasttrain.errors import UserError
from fasttrain.training import optim
from fasttrain.training.optim import Optimizers, parameter_groups
from tests.networks import small_network

Reference = Callable[[list[dict[str, object]]], torch.optim.Optimizer]
FACTORS = [0.1 + 0.9 * (step % 7) / 7 for step in range(20)]


def settings(**values: object) -> Optim:
    found: Optim = TypeAdapter(Optim).validate_python(values)
    return found


def network(seed: int = 0) -> nn.Module:
    return small_network("batch", seed)


def give_gradients(model: nn.Module, seed: int) -> None:
    """The same gradients for the same seed, laid out in memory like the weights."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=generator))


def train(model: nn.Module, optimizer: Optimizers, steps: range) -> None:
    for step in steps:
        give_gradients(model, step)
        optimizer.set_rates(FACTORS[step])
        optimizer.update()
        optimizer.zero_grad()


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((left - right).detach().abs().max()) for left, right in pairs)


# Against torch


@pytest.mark.parametrize(
    ("values", "plain"),
    [
        ({"lr": 0.1, "momentum": 0.0}, lambda groups: torch.optim.SGD(groups, 0.1)),
        (
            {"lr": 0.1, "weight_decay": 0.01},
            lambda groups: torch.optim.SGD(groups, 0.1, momentum=0.9, foreach=False),
        ),
        (
            {"lr": 0.1, "nesterov": True, "momentum": 0.8, "weight_decay": 0.02},
            lambda groups: torch.optim.SGD(groups, 0.1, momentum=0.8, nesterov=True, foreach=False),
        ),
        (
            {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
            lambda groups: torch.optim.AdamW(groups, 0.01, foreach=False),
        ),
        (
            {"name": "adamw", "lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0},
            lambda groups: torch.optim.AdamW(groups, 0.01, (0.8, 0.99), 1e-6, foreach=False),
        ),
    ],
    ids=["sgd", "sgd-decay", "sgd-nesterov", "adamw-decay", "adamw"],
)
def test_twenty_fused_steps_are_those_of_the_plain_optimiser(
    values: dict[str, object], plain: Reference
) -> None:
    model, twin, chosen = network(), network(), settings(**values)
    train(model, optim.build(chosen, model), range(20))
    groups = parameter_groups(dict(twin.named_parameters()), chosen.weight_decay)
    reference = plain(groups)
    for step, factor in enumerate(FACTORS):
        give_gradients(twin, step)
        for group in reference.param_groups:
            group["lr"] = chosen.lr * factor
        reference.step()
    assert largest_difference(model, twin) < 2e-6
    assert largest_difference(model, network()) > 0.05


def test_what_is_fused_is_fused() -> None:
    for values in ({"name": "sgd"}, {"name": "adamw"}):
        optimizer = optim.build(settings(**values), network())
        (member,) = optimizer._members.values()
        assert all(group["fused"] for group in member.param_groups)


# Parameter groups


def test_norms_and_biases_are_spared_from_decay() -> None:
    model = network()
    decayed, spared = parameter_groups(dict(model.named_parameters()), 0.3)
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert [names[id(weight)] for weight in decayed["params"]] == [
        "stages.0.convolution.weight",
        "stages.1.convolution.weight",
        "head.weight",
    ]
    assert {names[id(weight)] for weight in spared["params"]} == {
        "stages.0.norm.weight",
        "stages.0.norm.bias",
        "stages.1.norm.weight",
        "stages.1.norm.bias",
        "head.bias",
    }


def test_without_decay_there_is_one_group() -> None:
    (group,) = parameter_groups(dict(network().named_parameters()), 0.0)
    assert len(group["params"]) == len(list(network().parameters()))


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_decay_shrinks_matrices_and_leaves_vectors(name: str, biases: bool) -> None:
    """... but where `decay_biases` wants them shrunk, too, which AdamW does not know."""
    model = network()
    sgd: dict[str, Any] = {"name": "sgd", "lr": 0.1, "weight_decay": 0.5, "decay_biases": biases}
    chosen = {
        "sgd": sgd,
        "adamw": {"name": "adamw", "lr": 0.1, "weight_decay": 0.5},
        "muon": {"name": "muon", "lr": 0.1, "weight_decay": 0.5, "rest": sgd},
    }[name]
    optimizer = optim.build(settings(**chosen), model)
    before = [weight.detach().clone() for weight in model.parameters()]
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.update()
    for old, new in zip(before, model.parameters(), strict=True):
        shrinks = old.ndim > 1 or (biases and name != "adamw")
        assert torch.allclose(new, old * 0.95 if shrinks else old, atol=1e-7)


def test_frozen_parameters_are_left_alone() -> None:
    model = network()
    frozen = model.get_parameter("stages.0.convolution.weight")
    frozen.requires_grad_(False)
    for name in ("sgd", "adamw", "muon"):
        optimizer = optim.build(settings(name=name), model)
        updated = [each for group in optimizer.groups for each in group["params"]]
        assert all(each is not frozen for each in updated)
        assert len(updated) == len(list(model.parameters())) - 1


def test_muon_takes_the_kernels_and_leaves_the_head_and_the_vectors() -> None:
    model = network()
    optimizer = optim.build(settings(name="muon", rest={"name": "adamw"}), model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {
        name: {names[id(weight)] for group in member.param_groups for weight in group["params"]}
        for name, member in optimizer._members.items()
    }
    kernels = {"stages.0.convolution.weight", "stages.1.convolution.weight"}
    assert found == {"muon": kernels, "adamw": set(names.values()) - kernels}


@pytest.mark.parametrize(
    "network",
    [
        {"family": "cnn"},
        {"family": "attention_cnn", "head": {"hidden": [16]}},
        {"family": "wide_resnet"},
        {"family": "whitened_cnn"},
    ],
    ids=lambda settings: settings["family"],
)
def test_the_last_matrix_of_every_family_is_that_of_the_classes(network: dict[str, Any]) -> None:
    model = models.build(Config.model_validate({"model": network}).model, 7)
    optimizer = optim.build(settings(name="muon"), model)
    (group,) = optimizer._members["muon"].param_groups
    taken = {id(each) for each in group["params"]}
    learnt = [each for each in model.parameters() if each.ndim > 1 and each.requires_grad]
    assert [len(each) for each in learnt if id(each) not in taken] == [7]


# Rates


def test_the_factor_scales_the_rate_of_every_group() -> None:
    chosen = settings(name="muon", lr=0.5, rest={"lr": 0.2, "weight_decay": 0.1})
    optimizer = optim.build(chosen, network())
    for factor in (0.5, 0.1, 1.0):  # each of the rate as configured, not of the last one
        give_gradients_and_step(optimizer, factor)
        rates = [group["lr"] for group in optimizer.groups]
        assert rates == pytest.approx([0.5 * factor, 0.2 * factor, 0.2 * factor])


def give_gradients_and_step(optimizer: Optimizers, factor: float) -> None:
    for group in optimizer.groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.set_rates(factor)
    optimizer.update()


def test_no_gradient_is_left() -> None:
    model = network()
    optimizer = optim.build(settings(name="muon"), model)
    give_gradients(model, 0)
    optimizer.update()
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in model.parameters())


# State


@pytest.mark.parametrize(
    "values",
    [
        {"name": "sgd", "momentum": 0.0},
        {"name": "sgd", "weight_decay": 0.01},
        {"name": "adamw"},
        {"name": "muon", "rest": {"name": "adamw"}},
    ],
    ids=["plain", "sgd", "adamw", "muon"],
)
def test_an_optimiser_goes_on_from_its_state_bit_for_bit(values: dict[str, object]) -> None:
    model, chosen = network(), settings(**values)
    first = optim.build(chosen, model)
    train(model, first, range(7))
    twin = network(1)
    twin.load_state_dict(model.state_dict())
    second = optim.build(chosen, twin)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    train(model, first, range(7, 15))
    train(twin, second, range(7, 15))
    assert largest_difference(model, twin) == 0


@pytest.mark.parametrize("loads", [True, False])
def test_rates_that_kernels_read_come_back(loads: bool) -> None:
    """Where a run goes back to a checkpoint, or on without recorded updates."""
    model = network()
    chosen = optim.build(settings(name="muon", lr=0.1, rest={"name": "adamw", "lr": 0.2}), model)
    before = [dict(group) for group in chosen.groups]
    chosen.keep_rates_on(torch.device("cpu"))
    chosen.set_rates(0.5)
    assert [float(group["lr"]) for group in chosen.groups] == pytest.approx([0.05, 0.1, 0.1])
    if loads:
        chosen.load_state_dict(chosen.state_dict())
    else:
        chosen.keep_rates_here()
    assert [dict(group) for group in chosen.groups] == before


def test_settings_come_from_the_configuration_and_not_from_the_state() -> None:
    model = network()
    first = optim.build(settings(lr=0.1, momentum=0.9), model)
    train(model, first, range(2))
    second = optim.build(settings(lr=0.3, momentum=0.5), model)
    second.load_state_dict(first.state_dict())
    give_gradients(model, 0)
    second.update()
    assert [(group["lr"], group["momentum"]) for group in second.groups] == [(0.3, 0.5)]


def test_a_weight_keeps_its_own_momentum_when_decay_begins() -> None:
    """Which puts matrices ahead of all that is not decayed, so that places change."""
    model = network()
    first = optim.build(settings(momentum=0.9), model)
    train(model, first, range(2))
    second = optim.build(settings(momentum=0.9, weight_decay=0.1), model)
    second.load_state_dict(first.state_dict())
    (old,), (new,) = first._members.values(), second._members.values()
    for weight in model.parameters():
        kept = new.state[weight]["momentum_buffer"]
        assert torch.equal(kept, old.state[weight]["momentum_buffer"])


def test_an_older_state_names_weights_by_their_places() -> None:
    model = network()
    first = optim.build(settings(momentum=0.9, weight_decay=0.1), model)
    train(model, first, range(2))
    (member,) = first._members.values()
    second = optim.build(settings(momentum=0.9, weight_decay=0.1), model)
    second.load_state_dict({"sgd": member.state_dict()["state"]})
    (taken,) = second._members.values()
    for weight in model.parameters():
        kept = taken.state[weight]["momentum_buffer"]
        assert torch.equal(kept, member.state[weight]["momentum_buffer"])


def test_the_state_of_another_network_is_refused() -> None:
    state = optim.build(settings(name="adamw"), network()).state_dict()
    state["adamw"]["another.weight"] = {}
    with pytest.raises(UserError, match=r"'another\.weight' for adamw"):
        optim.build(settings(name="adamw"), network()).load_state_dict(state)


def test_a_state_holds_plain_data_only() -> None:
    model = network()
    optimizer = optim.build(settings(name="muon", rest={"name": "adamw"}), model)
    train(model, optimizer, range(1))
    leaves: list[object] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for value in node.values():
                walk(value)
        else:
            leaves.append(node)

    walk(optimizer.state_dict())
    assert leaves
    assert all(isinstance(leaf, Tensor) for leaf in leaves)


def test_the_state_of_another_optimiser_is_refused() -> None:
    model = network()
    state = optim.build(settings(name="muon"), model).state_dict()
    with pytest.raises(UserError, match="trained with muon and sgd, not with adamw") as caught:
        optim.build(settings(name="adamw"), model).load_state_dict(state)
    assert len(str(caught.value).splitlines()) == 1
