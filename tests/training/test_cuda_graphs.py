"""CUDA graphs: used where they can be, ready before they count, and they change no result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from fasttrain.config import SGD, AdamW, Muon, Optim, Resize, Train
from fasttrain.data.loader import Pictures
from fasttrain.errors import UserError
from fasttrain.runtime import Runtime
from fasttrain.training import optim
from fasttrain.training import step as step_module
from fasttrain.training.graphs import Recorded
from fasttrain.training.resizing import Resizer
from fasttrain.training.step import Outcome, TrainingStep
from tests.networks import small_network

Wanted = Literal["auto"] | bool
OPTIMIZERS: list[Optim] = [SGD(momentum=0.9, weight_decay=0.1), AdamW(), Muon(rest=SGD())]


def pictures(seed: int, device: torch.device) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 5, (8,), generator=generator)
    return Pictures(images.to(device), labels.to(device), 8)


def build(
    runtime: Runtime,
    train: Train,
    optimizer: Optim = OPTIMIZERS[0],
    resizer: Resizer | None = None,
) -> TrainingStep:
    torch.manual_seed(0)
    model = small_network("batch").to(runtime.device).to(memory_format=torch.channels_last)
    model.train()
    built = optim.build(optimizer, model)
    return TrainingStep(model, built, runtime, train, 0, resizer=resizer)


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


class Played:
    """Stands in for a recording: does the work each time."""

    def __init__(self, work: Callable[[Pictures], Outcome], place: Pictures, pool: Any) -> None:
        assert pool == "pool"
        self._work, self._shape, self.calls = work, place.images.shape, 0

    def __call__(self, pictures: Pictures) -> Outcome:
        assert pictures.images.shape == self._shape
        self.calls += 1
        return self._work(pictures)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "Recorded", Played)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.name)
@pytest.mark.parametrize("on_divergence", ["stop", "skip"])
def test_a_step_that_is_recorded_does_the_same(
    runtime: Runtime, optimizer: Optim, on_divergence: Literal["stop", "skip"]
) -> None:
    train = Train(accumulate=1, on_divergence=on_divergence, clip_norm=1.0)
    plain, recorded = (build(runtime, train, optimizer) for _ in range(2))
    recorded._graphs = True
    before = [value.clone() for value in recorded._model.state_dict().values()]
    recorded.warm_up(0, pictures(0, runtime.device))
    for value, old in zip(recorded._model.state_dict().values(), before, strict=True):
        assert torch.equal(value, old), "a warm-up changes nothing"
    assert all(weight.grad is None for weight in recorded._weights)

    for at in range(5):
        for step in (plain, recorded):
            step(at, pictures(at, runtime.device), 1 / (1 + at))

    (played,) = recorded._recorded.values()
    assert isinstance(played, Played)
    assert played.calls == 5
    torch.testing.assert_close(recorded.counters.take(), plain.counters.take())
    torch.testing.assert_close(recorded._model.state_dict(), plain._model.state_dict())
    torch.testing.assert_close(recorded._optimizer.state_dict(), plain._optimizer.state_dict())


@pytest.mark.usefixtures("played")
def test_every_size_of_pictures_is_recorded(runtime: Runtime) -> None:
    resizes = [Resize(scale=0.5, until="30%"), Resize(scale=0.75, until="60%")]
    resizer = Resizer(resizes, (8, 8), 2, 10, runtime.device)
    step = build(runtime, Train(accumulate=1), resizer=resizer)
    step._graphs = True

    step.warm_up(0, pictures(0, runtime.device))
    assert list(step._recorded) == [None, (6, 6), (4, 4)], "the largest first"
    step.warm_up(6, pictures(0, runtime.device))  # a run that goes on, or goes back
    assert list(step._recorded) == [None]
    step.forget()
    assert not step._recorded


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(
    ("wanted", "error", "goes_on"),
    [
        ("auto", torch.OutOfMemoryError, True),
        ("auto", torch.AcceleratorError, False),
        (True, torch.OutOfMemoryError, False),
    ],
)
def test_auto_goes_on_where_memory_does_not_suffice(
    runtime: Runtime,
    wanted: Wanted,
    error: type[RuntimeError],
    goes_on: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Fails(Played):
        def __init__(self, work: Callable[[Pictures], Outcome], place: Pictures, pool: Any) -> None:
            super().__init__(work, place, pool)
            for weight in step._weights:
                weight.grad = torch.ones_like(weight)  # what it has begun
            if len(step._recorded) == 1:
                raise error("no room\nfor a graph")

    resizer = Resizer([Resize(scale=0.5, until="30%")], (8, 8), 2, 10, runtime.device)
    train = Train(accumulate=1)
    plain, step = (build(runtime, train, resizer=resizer) for _ in range(2))
    step._graphs, step._must_record = True, wanted is True
    monkeypatch.setattr(step_module, "Recorded", Fails)

    if not goes_on:
        with pytest.raises(error):
            step.warm_up(0, pictures(0, runtime.device))
        return
    assert step.warm_up(0, pictures(0, runtime.device)) == "no room"

    for at in range(5):
        for each in (plain, step):
            each(at, pictures(at, runtime.device), 1 / (1 + at))
    assert not step._recorded
    torch.testing.assert_close(step._model.state_dict(), plain._model.state_dict())
    assert step.warm_up(5, pictures(0, runtime.device)) is None, "it is not tried again"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("CUDA error: out of memory", torch.OutOfMemoryError), ("else", torch.AcceleratorError)],
)
def test_a_recording_that_fails_leaves_its_stream(
    said: str, wanted: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = ["the run's"]

    @contextmanager
    def graph(*_words: Any, **_settings: Any) -> Iterator[None]:
        streams.append("its own")
        yield

    def work(_pictures: Pictures) -> Outcome:
        raise torch.AcceleratorError(said)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)

    with pytest.raises(wanted, match=said):
        Recorded(work, pictures(0, torch.device("cpu")), "pool")

    assert streams == ["the run's", "its own", "the run's"]


@contextmanager
def on_a_gpu(
    wanted: Wanted, optimizer: Optim = OPTIMIZERS[0], **settings: Any
) -> Iterator[tuple[Runtime, TrainingStep]]:
    torch.compiler.reset()
    chosen = {"device": "cuda", "precision": "fp32", "accumulate": 1, "cuda_graphs": wanted}
    train = Train.model_validate({**chosen, **settings})
    runtime = Runtime(train)
    try:
        step = build(runtime, train, optimizer)
        step.warm_up(0, pictures(0, runtime.device))
        yield runtime, step
    finally:
        runtime.close()
        torch.compiler.reset()


def trained(wanted: Wanted, optimizer: Optim, **settings: Any) -> tuple[Tensor, Tensor]:
    with on_a_gpu(wanted, optimizer, **settings) as (runtime, step):
        assert runtime.uses_graphs(Train(accumulate=1, cuda_graphs=wanted)) == bool(wanted)
        assert bool(step._recorded) == bool(wanted)
        totals = []
        for at in range(10):
            step(at, pictures(at, runtime.device), 0.1 / (1 + at))
            totals.append(step.counters.take())
        weights = torch.cat([weight.detach().flatten() for weight in step._weights])
        return torch.stack(totals).cpu(), weights.cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.name)
@pytest.mark.parametrize("settings", [{}, {"on_divergence": "skip", "clip_norm": 0.5}])
def test_they_change_no_result(optimizer: Optim, settings: dict[str, Any]) -> None:
    (recorded, its_weights), (single, other_weights) = (
        trained(wanted, optimizer, **settings) for wanted in (True, False)
    )
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


@pytest.mark.gpu
def test_auto_goes_on_without_where_memory_does_not_suffice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    norm = TrainingStep._clip

    def clip(step: TrainingStep) -> Tensor:
        if torch.cuda.is_current_stream_capturing():
            raise torch.OutOfMemoryError("no room")
        return norm(step)

    monkeypatch.setattr(TrainingStep, "_clip", clip)
    with on_a_gpu("auto") as (runtime, step):
        assert not step._recorded
        for at in range(3):
            step(at, pictures(at, runtime.device), 0.1)
            torch.rand(1, device=runtime.device)  # its generator is in order
        totals = step.counters.take().cpu()
    assert totals[2] == 24
    assert totals.isfinite().all()


@pytest.mark.gpu
def test_what_was_recorded_is_let_go_of() -> None:
    with on_a_gpu(True) as (runtime, step):
        reserved = []
        for at in range(6):
            step.warm_up(0, pictures(0, runtime.device))  # as after going back to a checkpoint
            step(at, pictures(at, runtime.device), 0.1)
            torch.cuda.synchronize()
            reserved.append(torch.cuda.memory_reserved())
        assert reserved[-1] <= reserved[2], reserved
        step.forget()
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() < reserved[-1]
