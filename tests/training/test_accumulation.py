"""A batch in parts is the whole batch; the norm of all gradients together is bounded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.config import SGD, Ema, Train
from fasttrain.data.loader import Pictures
from fasttrain.runtime import Runtime
from fasttrain.training import optim
from fasttrain.training.average import Average
from fasttrain.training.step import TrainingStep
from tests.networks import ghost_network, small_network

SETTINGS = SGD(lr=0.2, momentum=0.9)


def pictures(seed: int) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(24, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 5, (24,), generator=generator)
    return Pictures(images.to(memory_format=torch.channels_last), labels, 24)


def train(model: nn.Module, runtime: Runtime, steps: int = 5, **settings: object) -> Tensor:
    """Train on some batches; return the counters."""
    chosen = Train.model_validate({"label_smoothing": 0.1, **settings})
    step = TrainingStep(model, optim.build(SETTINGS, model), runtime, chosen, seed=0)
    for at in range(steps):
        step(at, pictures(at), 1.0)
    return step.counters.take()


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((left - right).detach().abs().max()) for left, right in pairs)


# Accumulation


@pytest.mark.parametrize("parts", [2, 3, 24])
def test_parts_give_the_weights_and_figures_of_the_whole(runtime: Runtime, parts: int) -> None:
    whole, cut = small_network(), small_network()
    expected = train(whole, runtime)
    found = train(cut, runtime, accumulate=parts)
    assert largest_difference(whole, cut) < 1e-6
    assert largest_difference(whole, small_network()) > 1e-2
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_clipping_looks_at_the_gradient_of_the_whole_batch(runtime: Runtime) -> None:
    whole, cut = small_network(), small_network()
    train(whole, runtime, clip_norm=0.3)
    train(cut, runtime, clip_norm=0.3, accumulate=4)
    assert largest_difference(whole, cut) < 1e-6


def test_batch_norm_takes_each_part_for_a_batch(runtime: Runtime) -> None:
    model, twin = small_network("batch"), small_network("batch")
    train(model, runtime, steps=1, accumulate=2)
    twin.train()
    with torch.no_grad():
        for part in pictures(0).images.chunk(2):
            twin(part)
    for name, buffer in model.named_buffers():
        assert torch.allclose(buffer.double(), twin.get_buffer(name).double(), atol=1e-6), name


@pytest.mark.parametrize("parts", [2, 4])
def test_ghost_batches_are_the_same_in_parts(runtime: Runtime, parts: int) -> None:
    whole, cut = ghost_network(ghost_batch=6), ghost_network(ghost_batch=6)
    train(whole, runtime)
    train(cut, runtime, accumulate=parts)
    assert largest_difference(whole, ghost_network(ghost_batch=6)) > 1e-2
    for name, values in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], values, atol=1e-5, rtol=1e-4)
    plain = ghost_network(ghost_batch=None)
    train(plain, runtime)
    assert largest_difference(whole, plain) > 1e-3  # so that it is no accident


def test_the_average_follows_steps_and_not_parts(runtime: Runtime) -> None:
    model = small_network()
    average = Average(model, Ema(decay=0.5, warmup=False))
    expected = [weight.detach().clone() for weight in model.parameters()]
    train_settings = Train(accumulate=4)
    step = TrainingStep(model, optim.build(SETTINGS, model), runtime, train_settings, 0, average)
    for at in range(3):
        step(at, pictures(at), 1.0)
        expected = [
            (old + new.detach()) / 2 for old, new in zip(expected, model.parameters(), strict=True)
        ]
    for old, new in zip(expected, average.model.parameters(), strict=True):
        assert torch.allclose(old, new, atol=1e-6)


# Clipping


def gradients(model: nn.Module) -> list[Tensor]:
    batch = pictures(0)
    loss = F.cross_entropy(model(batch.images), batch.labels, label_smoothing=0.1)
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("share", [0.1, 0.5, 2.0])
def test_the_norm_of_all_gradients_together_is_bounded(runtime: Runtime, share: float) -> None:
    model = small_network()
    slopes = gradients(model)
    norm = torch.cat([slope.flatten() for slope in slopes]).norm().item()
    before = [weight.detach().clone() for weight in model.parameters()]
    train(model, runtime, steps=1, clip_norm=norm * share)
    for old, new, slope in zip(before, model.parameters(), slopes, strict=True):
        assert torch.allclose(new, old - SETTINGS.lr * min(share, 1.0) * slope, atol=1e-6)
