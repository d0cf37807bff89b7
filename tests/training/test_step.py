"""One step is what one would write by hand; compiled it is the same, and compiled once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from fasttrain import models
from fasttrain.answers import Answers
from fasttrain.config import SGD, CnnModel, Train
from fasttrain.data.loader import Pictures
from fasttrain.data.plan import EvaluationPlan
from fasttrain.runtime import Runtime
from fasttrain.training import optim
from fasttrain.training.evaluate import Evaluation, Evaluator
from fasttrain.training.step import TrainingStep

pytestmark = pytest.mark.usefixtures("two_threads")  # generated code shares work, too
CLASSES, SIZE = 5, 8
SETTINGS = SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


def build(norm: str = "none", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = models.build(CnnModel.model_validate({"widths": (4, 6), "norm": norm}), CLASSES)
    return network.to(memory_format=torch.channels_last)


def training(
    model: nn.Module, runtime: Runtime, settings: SGD | None = None, smoothing: float = 0.0
) -> TrainingStep:
    optimizer = optim.build(settings or SGD(lr=0.1), model)
    return TrainingStep(model, optimizer, runtime, Train(label_smoothing=smoothing), seed=0)


def pictures(seed: int, count: int = 16, valid: int | None = None) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    images = images.to(memory_format=torch.channels_last)
    return Pictures(images, labels, count if valid is None else valid)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((left.double() - right.double()).abs().max()) for left, right in pairs)


class Replay:
    """A loader that delivers what it was given."""

    name = "replay"

    def __init__(self, batches: list[Pictures]) -> None:
        self._batches = batches

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        yield from self._batches[first:last]

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
def compiling() -> Iterator[Runtime]:
    torch.compiler.reset()
    yield Runtime(Train(device="cpu", precision="fp32", compile=True))
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.compiler.reset()


# By hand


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_steps_change_the_weights_as_written_by_hand(
    runtime: Runtime, norm: str, smoothing: float
) -> None:
    model, twin = build(norm), build(norm)
    step = training(model, runtime, SETTINGS, smoothing)
    momentum = {name: torch.zeros_like(weight) for name, weight in twin.named_parameters()}
    for seed in range(3):
        batch = pictures(seed)
        step(seed, batch, 1.0)

        log_shares = F.log_softmax(twin(batch.images), dim=1)
        target = F.one_hot(batch.labels, CLASSES) * (1 - smoothing) + smoothing / CLASSES
        loss = -(target * log_shares).sum(dim=1).mean()
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for (name, weight), gradient in zip(twin.named_parameters(), gradients, strict=True):
                decay = SETTINGS.weight_decay if weight.ndim > 1 else 0.0
                decayed = gradient + decay * weight
                momentum[name] = SETTINGS.momentum * momentum[name] + decayed
                weight.sub_(SETTINGS.lr * (decayed + SETTINGS.momentum * momentum[name]))
    assert largest_difference(model, twin) < 1e-6
    assert largest_difference(model, build(norm)) > 1e-2


def test_a_step_is_as_long_as_its_rate(runtime: Runtime) -> None:
    changes = []
    for rate in (0.1, 0.2):
        model = build()
        training(model, runtime, SGD(lr=5.0, momentum=0.0))(0, pictures(0), rate / 5.0)
        changes.append(model.state_dict()["head.bias"] - build().state_dict()["head.bias"])
    assert torch.allclose(2 * changes[0], changes[1], rtol=1e-4)


def test_the_counters_add_up_the_loss_the_right_answers_and_the_pictures(runtime: Runtime) -> None:
    model = build()
    step = training(model, runtime)
    loss, right = 0.0, 0
    for seed, count in ((0, 16), (1, 16), (2, 8)):
        batch = pictures(seed, count)
        logits = model(batch.images).detach()
        loss += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
        right += int((logits.argmax(dim=1) == batch.labels).sum())
        step(0, batch, 1.0)
    assert step.counters.take()[:3].tolist() == pytest.approx([loss, right, 40], rel=1e-5)


def test_counters_that_were_taken_start_again_and_stay_as_they_were(runtime: Runtime) -> None:
    model = build()
    step = training(model, runtime)
    assert step.counters.take().tolist() == [0.0] * 5
    step(0, pictures(0), 1.0)
    first = step.counters.take()
    before = first.clone()
    step(1, pictures(1), 1.0)
    assert torch.equal(first, before)
    second = step.counters.take()
    assert not torch.equal(first, second)
    assert step.counters.take().tolist() == [0.0] * 5


def test_the_counted_loss_is_the_one_that_is_trained_on(runtime: Runtime) -> None:
    model, batch = build(), pictures(0)
    with torch.no_grad():
        smooth = F.cross_entropy(model(batch.images), batch.labels, label_smoothing=0.3)
    step = training(model, runtime, smoothing=0.3)
    step(0, batch, 1.0)
    assert step.counters.take()[0].item() == pytest.approx(16 * smooth.item(), rel=1e-5)


def test_no_gradient_is_left_for_the_next_step(runtime: Runtime) -> None:
    model = build()
    training(model, runtime)(0, pictures(0), 1.0)
    assert all(weight.grad is None for weight in model.parameters())


def test_in_bf16_the_weights_the_loss_and_the_update_stay_in_full_precision() -> None:
    runtime = Runtime(Train(device="cpu", precision="bf16", compile=False))
    try:
        model, batch = build(), pictures(0)
        exact = F.cross_entropy(model(batch.images), batch.labels).item()
        step = training(model, runtime)
        step(0, batch, 1.0)
        totals = step.counters.take()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert totals.dtype == torch.float32
    assert totals[0].item() / 16 == pytest.approx(exact, rel=0.02)
    assert totals[0].item() / 16 != exact  # the forward pass did run in bf16


# Evaluation


def evaluation(counts: tuple[int, ...] = (16, 16, 5)) -> Evaluation:
    """Batches of 16 whose last rows may not count; what does not count is not a number."""
    batches = [pictures(100 + at, valid=count) for at, count in enumerate(counts)]
    for batch in batches:
        batch.images[batch.valid :] = torch.nan
    return Evaluation(Replay(batches), EvaluationPlan(np.arange(sum(counts)), 16))


def test_a_score_counts_every_picture_and_no_padding(runtime: Runtime) -> None:
    model = build("batch")
    found = evaluation()
    rows = list(found.loader.batches(0, 3))
    images = torch.cat([batch.images[: batch.valid] for batch in rows])
    labels = torch.cat([batch.labels[: batch.valid] for batch in rows])
    before = weights(model)
    score = Evaluator(model, runtime)(found)
    with torch.no_grad():
        logits = model.eval()(images)
    assert score.count == 37
    assert score.mean_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert score.label.tolist() == labels.tolist()
    assert score.predicted.tolist() == logits.argmax(dim=1).tolist()
    likeliest = logits.softmax(dim=1).max(dim=1).values
    assert score.confidence == pytest.approx(likeliest.numpy(), rel=1e-5)
    order = logits.argsort(dim=1, descending=True)
    places = (order == labels[:, None]).int().argmax(dim=1)
    assert score.rank.tolist() == places.tolist()
    assert score.accuracy == pytest.approx(
        (logits.argmax(dim=1) == labels).double().mean().item(), rel=1e-12
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_pass_that_misses_a_picture_is_a_bug_and_says_so(runtime: Runtime) -> None:
    short = evaluation((16, 16, 4))
    wrong = Evaluation(short.loader, EvaluationPlan(np.arange(37), 16))
    with pytest.raises(RuntimeError, match="counted 36 pictures of 37"):
        Evaluator(build(), runtime)(wrong)


def test_a_warm_up_changes_nothing(runtime: Runtime) -> None:
    model = build("batch")
    before = weights(model)
    evaluator = Evaluator(model, runtime)
    evaluator.warm_up(evaluation(), (SIZE, SIZE))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# Compiled


def test_compiled_training_and_evaluation_are_the_eager_ones_and_compile_once(
    compiling: Runtime,
) -> None:
    eager = Runtime(Train(device="cpu", precision="fp32", compile=False))
    expected, found = (short_run(runtime) for runtime in (eager, compiling))
    assert largest_difference(expected[0], found[0]) < 1e-5
    assert torch.allclose(expected[1], found[1], rtol=1e-5)
    assert [score.mean_loss for score in found[2]] == pytest.approx(
        [score.mean_loss for score in expected[2]], rel=1e-5
    )
    assert [score.accuracy for score in found[2]] == [score.accuracy for score in expected[2]]


def short_run(runtime: Runtime) -> tuple[nn.Module, Tensor, list[Answers]]:
    """Train, score and train again; after the first step nothing may be compiled any more."""
    model = build("batch")
    step = training(model, runtime, SETTINGS, smoothing=0.1)
    evaluator = Evaluator(model, runtime)
    step(0, pictures(0), 1.0)
    evaluator.warm_up(evaluation(), (SIZE, SIZE))
    step.counters.take()
    totals, scores = [], []
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(1, 5):
            model.train()
            step(seed, pictures(seed), 1.0)
            totals.append(step.counters.take())
            scores.append(evaluator(evaluation()))
    return model, torch.stack(totals), scores


def test_a_batch_of_another_shape_would_be_noticed(compiling: Runtime) -> None:
    """Guards the test above: the stance does fail where something is compiled anew."""
    evaluator = Evaluator(build(), compiling)
    evaluator.warm_up(evaluation(), (SIZE, SIZE))
    other = Evaluation(Replay([pictures(0, 17)]), EvaluationPlan(np.arange(17), 17))
    with (
        torch.compiler.set_stance("fail_on_recompile"),
        pytest.raises(RuntimeError, match="recompile"),
    ):
        evaluator(other)
