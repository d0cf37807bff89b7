"""Gates: what their weights sum to, and what the temperature does to them."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from fasttrain.config import Gate
from fasttrain.models.gate import build_gate

Name = Literal["softmax", "sigmoid", "uniform", "none"]


def weights(name: Name, temperature: float = 1.0, branches: int = 4) -> Tensor:
    torch.manual_seed(0)
    gate = build_gate(Gate(name=name), 6, branches)
    found: Tensor = gate(torch.randn(5, 6, 3, 3), torch.tensor(temperature))
    return found.detach()


@pytest.mark.parametrize("temperature", [0.01, 1, 30])
def test_the_weights_of_a_softmax_are_shares_of_one(temperature: float) -> None:
    found = weights("softmax", temperature)
    assert found.shape == (5, 4)
    assert found.dtype == torch.float32
    assert bool((found >= 0).all())
    torch.testing.assert_close(found.sum(dim=1), torch.ones(5))


def test_a_softmax_looks_at_the_channel_means_only() -> None:
    gate = build_gate(Gate(), 6, 4)
    images, one = torch.randn(5, 6, 4, 4), torch.ones(())
    moved = images.flip(2).transpose(2, 3)
    torch.testing.assert_close(gate(images, one), gate(moved, one))


def test_heat_makes_weights_uniform_and_cold_makes_a_choice() -> None:
    torch.testing.assert_close(weights("softmax", 1e6), torch.full((5, 4), 0.25))
    torch.testing.assert_close(weights("softmax", 1e-6).amax(dim=1), torch.ones(5))


def test_at_a_temperature_of_one_it_is_the_plain_softmax() -> None:
    gate = build_gate(Gate(), 6, 4)
    images = torch.randn(5, 6, 3, 3)
    plain = torch.softmax(gate.linear(images.mean(dim=(2, 3))), dim=1)
    torch.testing.assert_close(gate(images, torch.ones(())), plain)


def test_sigmoid_weights_are_apart_from_each_other_and_from_the_temperature() -> None:
    found = weights("sigmoid")
    assert bool(((found > 0) & (found < 1)).all())
    assert not torch.allclose(found.sum(dim=1), torch.ones(5))
    assert torch.equal(found, weights("sigmoid", 30.0))


def test_fixed_weights_are_the_same_for_every_picture() -> None:
    assert weights("uniform").tolist() == [[0.25] * 4]
    assert weights("none").tolist() == [[1.0] * 4]


@pytest.mark.parametrize("name", ["uniform", "none"])
def test_a_fixed_gate_has_nothing_to_learn_or_to_save(name: Name) -> None:
    gate = build_gate(Gate(name=name), 6, 4)
    assert not list(gate.parameters())
    assert not gate.state_dict()
