"""A training step never brings a number to the host, and is compiled once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from accelerate.state import AcceleratorState
from pydantic import TypeAdapter
from torch.autograd.profiler_util import FunctionEvent

from fasttrain.config import Ema, Optim, Train
from fasttrain.data.loader import Pictures
from fasttrain.runtime import Runtime
from fasttrain.training import optim
from fasttrain.training.average import Average
from fasttrain.training.counters import NEVER
from fasttrain.training.step import TrainingStep
from tests.networks import small_network

OPTIMIZERS: list[dict[str, object]] = [
    {"name": "sgd", "nesterov": True, "weight_decay": 0.01},
    {"name": "adamw"},
    {"name": "muon", "weight_decay": 0.01, "fix_norm": True, "rest": {"name": "adamw"}},
]
TRAIN = Train(device="cpu", precision="fp32", accumulate=2, clip_norm=1.0, label_smoothing=0.1)
BLOCKING = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero"}


def pictures(seed: int) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 5, (8,), generator=generator)
    return Pictures(images.to(memory_format=torch.channels_last), labels, 8)


def build(values: dict[str, object], runtime: Runtime) -> TrainingStep:
    model = small_network("batch")
    chosen: Optim = TypeAdapter(Optim).validate_python(values)
    average = Average(model, Ema())
    return TrainingStep(model, optim.build(chosen, model), runtime, TRAIN, 0, average)


def is_torchs_own(event: FunctionEvent) -> bool:
    """The fused AdamW kernel for CPUs reads its step counters, which the host owns there."""
    parents = []
    while event.cpu_parent is not None:
        event = event.cpu_parent
        parents.append(event.name)
    return "aten::_fused_adamw_" in parents


@pytest.mark.parametrize("values", OPTIMIZERS, ids=lambda values: str(values["name"]))
def test_no_number_comes_to_the_host(runtime: Runtime, values: dict[str, object]) -> None:
    step = build(values, runtime)
    step(0, pictures(0), 1.0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for at in range(1, 4):
            step(at, pictures(at), 1 / at)
        totals, bad = step.counters.take(), step.counters.first_bad
    events = [event for event in profile.events() if event.name in BLOCKING]
    assert any(event.name == "aten::convolution" for event in profile.events())
    assert [event.name for event in events if not is_torchs_own(event)] == []
    assert totals[2].item() == sum(len(pictures(at).labels) for at in range(4))
    assert bad.item() == NEVER


def test_a_number_that_comes_to_the_host_would_be_noticed() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.ones(1).item()
    assert BLOCKING & {event.name for event in profile.events()}


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """Traces and guards as always, but runs what was traced eagerly: no code is generated."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield Runtime(TRAIN.model_copy(update={"compile": True}))
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.compiler.reset()


@pytest.mark.parametrize("values", OPTIMIZERS, ids=lambda values: str(values["name"]))
def test_nothing_is_compiled_again_when_the_rate_changes(
    compiling: Runtime, values: dict[str, object]
) -> None:
    step = build(values, compiling)
    step(0, pictures(0), 0.1)
    with torch.compiler.set_stance("fail_on_recompile"):
        for at in range(1, 5):
            step(at, pictures(at), 0.1 * at)
