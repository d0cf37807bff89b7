"""The averaged model follows the trained one as written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fasttrain.config import Ema
from fasttrain.training.average import Average, decay_at
from tests.networks import small_network


def change(model: nn.Module, seed: int) -> None:
    """What a training step does to weights and buffers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.add_(1)


@pytest.mark.parametrize("ema", [Ema(decay=0.7, warmup=False), Ema(decay=0.3, warmup=True)])
def test_weights_and_statistics_are_averaged_as_by_hand(ema: Ema) -> None:
    model = small_network("batch")
    average = Average(model, ema)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    for step in range(6):
        change(model, step)
        average.update(step)
        decay = min(ema.decay, (1 + step) / (10 + step)) if ema.warmup else ema.decay
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in average.model.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), expected[name], atol=1e-6), name
        else:
            assert value.item() == 6


def test_the_average_is_a_model_of_its_own() -> None:
    model = small_network("batch")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = Average(model, Ema())
    average.update(0)
    change(average.model, 3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(weight.requires_grad for weight in average.model.parameters())
    assert all(weight.requires_grad for weight in model.parameters())
    for one, other in zip(model.parameters(), average.model.parameters(), strict=True):
        assert one.stride() == other.stride()


def test_a_warm_up_forgets_the_initial_weights_and_ends_at_the_decay() -> None:
    decays = [decay_at(Ema(decay=0.99), step) for step in range(2000)]
    assert decays[0] == pytest.approx(0.1)
    assert decays == sorted(decays)
    assert decays[-1] == 0.99
    assert decay_at(Ema(decay=0.99, warmup=False), 0) == 0.99
