"""A run that was cut off in the middle of an epoch ends as the undisturbed one, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from fasttrain import models
from fasttrain.config import AttentionCnnModel, Config
from fasttrain.data import sources
from fasttrain.data.loader import Pictures
from fasttrain.data.shapes import ShapesSource
from fasttrain.errors import UserError
from fasttrain.observe import journal
from fasttrain.training import checkpoint
from fasttrain.training.run import run
from fasttrain.training.step import TrainingStep

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.05, "nesterov": True, "weight_decay": 0.01},
    "adamw": {"name": "adamw", "lr": 0.01},
    "muon": {"name": "muon", "weight_decay": 0.01, "rest": {"name": "adamw", "lr": 0.01}},
}
CUT = 8  # the run is cut off in this step: in the second epoch, and between two logs


@pytest.fixture(autouse=True)
def _few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ShapesSource", lambda: ShapesSource(train=120, test=30))


def recipe(optimizer: str, **changes: Any) -> Config:
    """6 steps an epoch, a log every 4, a checkpoint every 5 steps."""
    train = {"epochs": 3, "device": "cpu", "precision": "fp32", "compile": False}
    more = {"accumulate": 2, "clip_norm": 1.0, "label_smoothing": 0.1, "ema": {"decay": 0.9}}
    settings = {
        "seed": 5,
        "data": {
            "dataset": "shapes",
            "batch_size": 16,
            "validation": 20,
            "loader": "resident",
            "augment": ["crop", "flip"],
        },
        "model": {"widths": [4, 6], "norm": "batch"},
        "optim": OPTIMIZERS[optimizer],
        "schedule": {"name": "one_cycle"},
        "train": {**train, **more, "log_every": "4steps", **changes},
        "checkpoint": {"every": "5steps", "keep": 9},
    }
    return Config.model_validate(settings)


def train(config: Config, folder: Path, resume: bool = False) -> Path:
    run(config, folder, resume, Console(quiet=True))
    return folder


def train_in_two(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cut the run off in the middle of a step; go on from its newest checkpoint."""
    whole = TrainingStep.__call__

    def cut_off(self: TrainingStep, step: int, pictures: Pictures, factor: float) -> None:
        if step + 1 == CUT:
            self._backward(pictures, None)  # half a step, and then no more
            raise KeyboardInterrupt
        whole(self, step, pictures, factor)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "__call__", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(config, folder)
    assert [each.name for each in (folder / "checkpoints").iterdir()] == ["step-00000005"]
    torch.manual_seed(999)  # a fresh process has drawn other numbers by now
    return train(config, folder, resume=True)


def records(folder: Path) -> list[dict[str, Any]]:
    """The journal without what the clock says."""
    kept = ("kind", "step", "epoch", "split", "loss", "accuracy", "lr", "count")
    written = journal.read(folder / "metrics.jsonl")
    return [{key: record[key] for key in kept if key in record} for record in written]


def leaves(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in leaves(value)]
    return [node]


def assert_same_end(one: Path, other: Path) -> None:
    first, second = (folder / "checkpoints" / "step-00000018" for folder in (one, other))
    for name in ("model.safetensors", "ema.safetensors"):
        assert (first / name).exists() == (second / name).exists()
        if (first / name).exists():
            assert (first / name).read_bytes() == (second / name).read_bytes(), name
    states = [leaves(checkpoint.load_state(each)["optimizer"]) for each in (first, second)]
    for left, right in zip(*states, strict=True):
        assert torch.equal(left, right) if isinstance(left, Tensor) else left == right
    assert records(one) == records(other)
    assert {record["step"] for record in records(one)} == {4, 6, 8, 12, 16, 18}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_in_two_pieces_is_the_run_in_one(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe(optimizer)
    whole = train(config, tmp_path / "whole")
    assert_same_end(whole, train_in_two(config, tmp_path / "pieces", monkeypatch))
    last = whole / "checkpoints" / "step-00000018"
    weights = (last / "model.safetensors").read_bytes()
    assert weights != (last / "ema.safetensors").read_bytes()
    environment = json.loads((tmp_path / "pieces" / "environment.json").read_text())
    first, second = environment["starts"]
    assert first["step"] == 0 < second["step"] < 18


@pytest.mark.gpu
@pytest.mark.parametrize("loader", ["resident", "dali"])
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: str, compiled: bool
) -> None:
    """Deterministic, with bfloat16, dropout, two sizes and, where it is compiled, CUDA graphs."""
    changes = {"device": "cuda", "precision": "bf16", "deterministic": True, "compile": compiled}
    resize = [{"scale": 0.5, "until": "50%"}]
    config = recipe("muon", accumulate=1, clip_norm=None, resize=resize, **changes)
    data = config.data.model_copy(update={"loader": loader})
    model = AttentionCnnModel.model_validate(
        {"stages": [{"width": 8, "blocks": 1}], "dropout": 0.3}
    )
    config = config.model_copy(update={"data": data, "model": model})
    whole = train(config, tmp_path / "whole")
    assert_same_end(whole, train_in_two(config, tmp_path / "pieces", monkeypatch))


def test_without_any_of_it_a_run_resumes_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe("sgd", accumulate=1, clip_norm=None, ema=None)
    whole = train(config, tmp_path / "whole")
    assert not list(whole.glob("checkpoints/*/ema.safetensors"))
    assert_same_end(whole, train_in_two(config, tmp_path / "pieces", monkeypatch))


class Forgetful(nn.Module):
    """A model that draws: dropout after every stage."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        self.network = models.CNN(*arguments)

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.network.stages:
            images = nn.functional.dropout(stage(images), 0.3, self.training)
        logits: Tensor = self.network.head(images.mean(dim=(2, 3)))
        return logits


def test_a_model_that_draws_resumes_with_the_same_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(recipe("sgd"), tmp_path / "plain")
    monkeypatch.setitem(models._FAMILIES, "cnn", Forgetful)
    whole = train(recipe("sgd"), tmp_path / "whole")
    assert_same_end(whole, train_in_two(recipe("sgd"), tmp_path / "pieces", monkeypatch))
    assert records(whole) != records(plain)


def test_the_average_is_what_is_scored(tmp_path: Path) -> None:
    from fasttrain.use.evaluate import evaluate

    folder = train(recipe("sgd", ema={"decay": 0.99}), tmp_path / "run")
    found = evaluate(folder)
    scored = [record for record in records(folder) if record.get("split") == "test"]
    assert found["loss"] == pytest.approx(scored[-1]["loss"], rel=1e-6)
    (folder / "config.yaml").write_text(recipe("sgd", ema=None).to_yaml())
    assert evaluate(folder)["loss"] != pytest.approx(scored[-1]["loss"], rel=1e-5)


def test_averaging_cannot_begin_in_the_middle(tmp_path: Path) -> None:
    folder = train(recipe("sgd", ema=None), tmp_path / "run")
    (folder / "result.json").unlink()
    with pytest.raises(UserError, match=r"train\.ema.* \(it was "):
        train(recipe("sgd"), folder, resume=True)
