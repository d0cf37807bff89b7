"""A loss or gradient that is not a finite number: noticed, told, skipped or gone back from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from rich.console import Console
from torch import Tensor

from fasttrain.answers import Answers
from fasttrain.config import Config, Ema, Optim, Train
from fasttrain.data import sources
from fasttrain.data.loader import Pictures
from fasttrain.data.shapes import ShapesSource
from fasttrain.errors import DivergedError
from fasttrain.observe import journal
from fasttrain.runtime import Runtime
from fasttrain.training import checkpoint, divergence, optim
from fasttrain.training.average import Average
from fasttrain.training.counters import NEVER
from fasttrain.training.divergence import BadStepError
from fasttrain.training.evaluate import Evaluation, Evaluator
from fasttrain.training.run import run
from fasttrain.training.step import TrainingStep
from tests.networks import small_network

OPTIMIZERS: list[dict[str, object]] = [
    {"name": "sgd", "nesterov": True, "weight_decay": 0.01},
    {"name": "adamw"},
    {"name": "muon", "weight_decay": 0.01, "rest": {"name": "adamw"}},
]
TRAIN = Train(device="cpu", precision="fp32", compile=False, accumulate=2)
STEPS = 6  # in an epoch of the runs below


def pictures(seed: int, bad: bool = False) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 8, 8, generator=generator)
    if bad:
        images[5, 0, 0, 0] = torch.nan
    labels = torch.randint(0, 5, (8,), generator=generator)
    return Pictures(images.to(memory_format=torch.channels_last), labels, 8)


def flat(state: Any) -> list[Tensor]:
    if isinstance(state, dict):
        return [leaf for value in state.values() for leaf in flat(value)]
    return [state] if isinstance(state, Tensor) else []


@pytest.mark.parametrize("values", OPTIMIZERS, ids=lambda values: str(values["name"]))
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_skipped_step_leaves_everything_as_it_was(
    runtime: Runtime, values: dict[str, object], clip_norm: float | None
) -> None:
    model = small_network("batch")
    chosen: Optim = TypeAdapter(Optim).validate_python(values)
    optimizer = optim.build(chosen, model)
    train = TRAIN.model_copy(update={"on_divergence": "skip", "clip_norm": clip_norm})
    average = Average(model, Ema())
    step = TrainingStep(model, optimizer, runtime, train, 0, average)

    def everything() -> dict[str, Any]:
        parts = {"model": model, "optimizer": optimizer, "average": average.model}
        return {name: part.state_dict() for name, part in parts.items()}

    step(0, pictures(0), 1.0)
    step.counters.take()
    before = checkpoint.copy(everything())
    step(1, pictures(1, bad=True), 1.0)
    after = everything()
    for old, new in zip(flat(before), flat(after), strict=True):
        assert torch.equal(old, new)
    assert step.counters.take().tolist() == [0, 0, 0, 0, 8]
    step(2, pictures(2), 1.0)
    assert not torch.equal(before["model"]["head.weight"], model.state_dict()["head.weight"])
    assert step.counters.take()[2:].tolist()[::2] == [8, 0]


@pytest.mark.parametrize(
    "values", [*OPTIMIZERS, {"name": "muon", "rest": {"name": "sgd"}}], ids=str
)
def test_the_first_step_may_be_skipped(
    runtime: Runtime, values: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritten(like: Tensor, **options: Any) -> Tensor:  # memory that had another use
        return torch.full_like(like, 7.0, **options)

    ends = []
    for begins in (True, False):
        model = small_network()
        chosen: Optim = TypeAdapter(Optim).validate_python(values)
        train = TRAIN.model_copy(update={"on_divergence": "skip"})
        step = TrainingStep(model, optim.build(chosen, model), runtime, train, 0)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty_like", unwritten)
            if begins:
                step(0, pictures(0, bad=True), 1.0)
            step(1, pictures(1), 1.0)
            step(2, pictures(2), 1.0)
        ends.append(model.state_dict())
    torch.testing.assert_close(*ends, atol=0, rtol=0)


@pytest.mark.parametrize("values", OPTIMIZERS, ids=lambda values: str(values["name"]))
def test_steps_that_may_be_skipped_train_as_others(
    runtime: Runtime, values: dict[str, object]
) -> None:
    ends = []
    for policy in ("skip", "stop"):
        model = small_network("batch")
        chosen: Optim = TypeAdapter(Optim).validate_python(values)
        train = TRAIN.model_copy(update={"on_divergence": policy})
        average = Average(model, Ema())
        step = TrainingStep(model, optim.build(chosen, model), runtime, train, 0, average)
        for at in range(3):
            step(at, pictures(at), 1.0)
        ends.append({**model.state_dict(), "average": next(average.model.parameters())})
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


def test_the_first_bad_step_is_remembered_on_the_device(runtime: Runtime) -> None:
    model = small_network()
    step = TrainingStep(model, optim.build(Config().optim, model), runtime, TRAIN, 0)
    step(3, pictures(3), 1.0)
    assert step.counters.first_bad.item() == NEVER
    for at in (4, 5):
        step(at, pictures(at, bad=True), 1.0)
    assert step.counters.first_bad.item() == 4


def test_a_gradient_alone_can_be_bad(runtime: Runtime) -> None:
    model = small_network()
    step = TrainingStep(model, optim.build(Config().optim, model), runtime, TRAIN, 0)
    weight = next(model.parameters())
    weight.register_hook(lambda gradient: gradient * torch.inf)
    step(7, pictures(7), 1.0)
    assert step.counters.first_bad.item() == 7
    assert step.counters.take()[0].isfinite()


# Whole runs


@pytest.fixture(autouse=True)
def _few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ShapesSource", lambda: ShapesSource(train=120, test=30))


def recipe(**train: Any) -> Config:
    quick = {"epochs": 3, "device": "cpu", "precision": "fp32", "compile": False}
    return Config.model_validate(
        {
            "data": {"dataset": "shapes", "batch_size": 16, "validation": 20},
            "model": {"widths": [4, 6], "norm": "batch"},
            "train": {**quick, "log_every": "2steps", **train},
            "checkpoint": {"every": "3steps"},
        }
    )


def spoil(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Let the pictures of these steps, counted from 0, hold something that is no number."""
    whole = TrainingStep.__call__

    def spoiled(self: TrainingStep, step: int, batch: Pictures, factor: float) -> None:
        images = batch.images * torch.nan if step in steps else batch.images
        whole(self, step, Pictures(images, batch.labels, batch.valid), factor)

    monkeypatch.setattr(TrainingStep, "__call__", spoiled)


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [one for one in journal.read(folder / "metrics.jsonl") if one["kind"] == kind]


def test_a_run_that_diverges_stops_and_names_the_step_its_pictures_and_the_way_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 7)
    with pytest.raises(DivergedError) as caught:
        run(recipe(), tmp_path / "run", console=Console(quiet=True))
    message = str(caught.value)
    assert "step 8" in message
    assert "step-00000006" in message
    about = json.loads((tmp_path / "run" / "divergence.json").read_text())
    assert about["step"] == 8
    assert len(about["pictures"]) == 16
    assert f"pictures {about['pictures'][0]}, {about['pictures'][1]}, " in message
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert (outcome["outcome"], outcome["exit_code"]) == ("diverged", 3)


def test_an_evaluation_does_not_hide_which_step_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 7)
    seldom = recipe(log_every="18steps", evaluate_every="11steps").model_dump(mode="json")
    config = Config.model_validate({**seldom, "checkpoint": {"every": "18steps"}})
    with pytest.raises(DivergedError, match="of step 8 is"):
        run(config, tmp_path / "run", console=Console(quiet=True))


def test_a_run_goes_back_and_passes_over_the_bad_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 7)
    folder, result = run(
        recipe(on_divergence="rollback"), tmp_path / "run", console=Console(quiet=True)
    )
    assert [(one["step"], one["to"]) for one in records(folder.path, "rollback")] == [(8, 6)]
    assert result["rollbacks"] == 1
    steps = [one["step"] for one in records(folder.path, "train")]
    assert steps == [2, 4, 6, 10, 12, 14, 16, 18]
    assert checkpoint.newest(folder.checkpoints)[0] == folder.checkpoints / "step-00000018"


def test_a_run_may_go_back_from_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 17)
    folder, result = run(
        recipe(on_divergence="rollback"), tmp_path / "run", console=Console(quiet=True)
    )
    assert result["rollbacks"] == 1
    assert folder.finished() is not None
    kept, last = (folder.checkpoints / f"step-{step:08d}" for step in (15, 18))
    weights = [(each / "model.safetensors").read_bytes() for each in (kept, last)]
    assert weights[0] == weights[1]


def test_a_run_that_went_back_and_was_cut_off_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 7)
    config = recipe(on_divergence="rollback")
    whole, _ = run(config, tmp_path / "whole", console=Console(quiet=True))
    ends = [(whole.checkpoints / "step-00000018" / "model.safetensors").read_bytes()]
    for cut in (8, 10):  # behind the bad step: before a checkpoint was written, and after
        folder = tmp_path / f"cut{cut}"
        spoiled = TrainingStep.__call__

        def cut_off(
            self: TrainingStep,
            step: int,
            batch: Pictures,
            factor: float,
            at: int = cut,
            whole: Callable[..., None] = spoiled,
        ) -> None:
            if step == at and self.counters.totals.isfinite().all():
                raise KeyboardInterrupt
            whole(self, step, batch, factor)

        with monkeypatch.context() as patch:
            patch.setattr(TrainingStep, "__call__", cut_off)
            with pytest.raises(KeyboardInterrupt):
                run(config, folder, console=Console(quiet=True))
        run(config, folder, resume=True, console=Console(quiet=True))
        ends.append((folder / "checkpoints/step-00000018/model.safetensors").read_bytes())
        assert len(records(folder, "rollback")) == 1
    assert len(set(ends)) == 1


def test_a_run_goes_back_only_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 7, 9, 11)
    config = recipe(on_divergence="rollback", rollbacks=2)
    with pytest.raises(DivergedError, match=r"diverged after 2 rollbacks: .* step 12") as caught:
        run(config, tmp_path / "run", console=Console(quiet=True))
    assert "set train.on_divergence" not in str(caught.value)
    assert len(records(tmp_path / "run", "rollback")) == 2


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 1)
    with pytest.raises(DivergedError, match="; there is no good checkpoint yet; lower"):
        run(recipe(on_divergence="rollback"), tmp_path / "run", console=Console(quiet=True))


def test_an_evaluation_that_is_no_number_is_not_taken_for_a_step() -> None:
    bad = BadStepError(4, "the loss of the evaluation after step")
    message = divergence.describe(bad, [1, 2], "step-00000003", 0.1, rollbacks=0, goes_back=False)
    assert "diverged: the loss of the evaluation after step 5 is not a finite number" in message
    assert message.endswith("or set train.on_divergence=rollback")


def test_a_run_that_skips_says_how_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 7)
    folder, result = run(
        recipe(on_divergence="skip"), tmp_path / "run", console=Console(quiet=True)
    )
    skipped = {one["step"]: one["skipped"] for one in records(folder.path, "train")}
    assert {step for step, count in skipped.items() if count} == {8}
    assert result["steps"] == 18


def test_skipping_everything_is_no_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, *range(6, 18))
    with pytest.raises(DivergedError):
        run(recipe(on_divergence="skip"), tmp_path / "run", console=Console(quiet=True))


def test_a_log_of_nothing_but_one_skipped_step_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 7)
    config = recipe(on_divergence="skip", log_every="1steps")
    folder, _ = run(config, tmp_path / "run", console=Console(quiet=True))
    lines = records(folder.path, "train")
    assert [one["step"] for one in lines] == [step for step in range(1, 19) if step != 8]
    assert {one["step"]: one["skipped"] for one in lines if one["skipped"]} == {9: 1}


def test_what_was_skipped_is_told_by_the_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 8)  # the last before a checkpoint
    settings = recipe(on_divergence="skip", log_every="1steps").model_dump(mode="json")
    config = Config.model_validate({**settings, "checkpoint": {"every": "3steps", "keep": 9}})
    whole, _ = run(config, tmp_path / "whole", console=Console(quiet=True))
    shutil.copytree(whole.path, tmp_path / "cut")
    for later in (12, 15, 18):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"step-{later:08d}")
    (tmp_path / "cut" / "result.json").unlink()
    cut, _ = run(config, tmp_path / "cut", resume=True, console=Console(quiet=True))
    told = [
        [(one["step"], one["skipped"], one["batches"]) for one in records(each.path, "train")]
        for each in (whole, cut)
    ]
    assert told[0] == told[1]
    assert (10, 1) in [line[:2] for line in told[1]]


def test_a_score_that_is_no_number_is_a_divergence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Evaluator.__call__

    def score(self: Evaluator, evaluation: Evaluation, *rest: Any) -> Answers:
        found = whole(self, evaluation, *rest)
        if found.count == 30:
            found.loss[7] = np.nan
        return found

    monkeypatch.setattr(Evaluator, "__call__", score)
    with pytest.raises(DivergedError, match="step 18 is not a finite"):
        run(recipe(), tmp_path / "run", console=Console(quiet=True))
