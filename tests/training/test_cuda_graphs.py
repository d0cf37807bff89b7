"""CUDA graphs: used where they can be, ready before they count, and they change no result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from fasttrain.config import SGD, Train
from fasttrain.data.loader import Pictures
from fasttrain.errors import UserError
from fasttrain.runtime import Runtime
from fasttrain.training import optim
from fasttrain.training.step import TrainingStep
from tests.networks import small_network

Wanted = Literal["auto"] | bool


def pictures(seed: int, device: torch.device) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 5, (8,), generator=generator)
    return Pictures(images.to(device), labels.to(device), 8)


def build(runtime: Runtime, train: Train) -> TrainingStep:
    torch.manual_seed(0)
    model = small_network("batch").to(runtime.device).to(memory_format=torch.channels_last)
    return TrainingStep(model, optim.build(SGD(momentum=0.9), model), runtime, train, 0)


def test_a_cpu_has_none(runtime: Runtime) -> None:
    assert not runtime.uses_graphs(Train(cuda_graphs="auto", accumulate=1))
    assert not runtime.uses_graphs(Train(cuda_graphs=False, accumulate=1))
    with pytest.raises(UserError, match="cuda_graphs=true: it takes one process on a GPU"):
        build(runtime, Train(cuda_graphs=True, accumulate=1))


@pytest.mark.parametrize(
    ("lacking", "value"), [("compile", False), ("world", 2), ("device", torch.device("cpu"))]
)
def test_where_they_can_be_used(runtime: Runtime, lacking: str, value: Any) -> None:
    runtime.device, runtime.compile = torch.device("cuda"), True
    assert runtime.uses_graphs(Train(accumulate=1))
    assert not runtime.uses_graphs(Train(accumulate=1, cuda_graphs=False))
    assert not runtime.uses_graphs(Train(accumulate=2)), "a part's gradients would be lost"

    setattr(runtime, lacking, value)

    assert not runtime.uses_graphs(Train(accumulate=1))
    runtime.device = torch.device("cpu")  # as it is closed


def test_a_warm_up_records_all_of_it(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    step = build(runtime, Train(accumulate=1))
    step._graphs = True
    calls: list[bool] = []
    backward = step._backward

    def noted(*words: Any) -> Tensor:
        calls.append(all(weight.grad is None for weight in step._weights))
        return backward(*words)

    monkeypatch.setattr(step, "_backward", noted)
    step._model.train()

    step.warm_up(0, pictures(0, runtime.device))

    # Made ready, recorded, replayed; a graph must not write to gradients that are still held.
    assert calls == [True, True, True]
    assert all(weight.grad is None for weight in step._weights)


@contextmanager
def on_a_gpu(wanted: Wanted) -> Iterator[tuple[Runtime, TrainingStep]]:
    torch.compiler.reset()
    counters.clear()
    train = Train(device="cuda", precision="fp32", accumulate=1, cuda_graphs=wanted)
    runtime = Runtime(train)
    try:
        step = build(runtime, train)
        step._model.train()
        step.warm_up(0, pictures(0, runtime.device))
        yield runtime, step
    finally:
        runtime.close()
        torch.compiler.reset()


def trained(wanted: Wanted) -> tuple[Tensor, Tensor]:
    with on_a_gpu(wanted) as (runtime, step):
        assert runtime.uses_graphs(Train(accumulate=1, cuda_graphs=wanted)) == bool(wanted)
        # torch leaves them out without a word where it finds that they cannot be recorded.
        assert counters["inductor"]["cudagraph_skips"] == 0
        totals = []
        for at in range(10):
            step(at, pictures(at, runtime.device), 0.1)
            totals.append(step.counters.take())
        weights = torch.cat([weight.detach().flatten() for weight in step._weights])
        return torch.stack(totals).cpu(), weights.cpu()


@pytest.mark.gpu
def test_they_change_no_result() -> None:
    (recorded, its_weights), (single, other_weights) = trained(True), trained(False)
    torch.testing.assert_close(recorded, single, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(its_weights, other_weights, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("wanted", [True, False])
def test_no_step_waits_for_the_gpu(wanted: bool) -> None:
    with on_a_gpu(wanted) as (runtime, step):
        batches = [pictures(at, runtime.device) for at in range(6)]
        step(0, batches[0], 0.1)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for at in range(1, 6):
                step(at, batches[at], 0.1 / at)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert step.counters.take()[2].item() == 48
