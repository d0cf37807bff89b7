"""Losses and scores do not depend on the number of ranks, but where batch norm makes them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from click.testing import CliRunner

from fasttrain.cli import main
from fasttrain.config import load
from fasttrain.data import sources
from fasttrain.runtime import Runtime
from fasttrain.training import parts
from fasttrain.use.evaluate import evaluate
from tests.distributed.launching import on_ranks
from tests.pictures import make_pictures, write_zip

STEPS = 50
TEST_PICTURES = 10_000


@dataclass(frozen=True)
class Runs:
    """Trains one configuration on one process and on several ranks, each only once."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    def train(self, world: int, norm: str, exchange: str = "fp32") -> Path:
        return self.train_changed(world, f"model.norm={norm}", f"train.exchange={exchange}")

    def train_changed(self, world: int, *changed: str) -> Path:
        run = self.folder / "-".join([*changed, str(world)])
        words = ("train", str(self.config), *changed, "--run-dir", str(run))
        if run.exists():
            return run
        if world == 1:
            ended = CliRunner().invoke(main, words, catch_exceptions=False)
            assert ended.exit_code == 0, ended.output
        else:
            launched = on_ranks(world, "-m", "fasttrain", *words, folder=self.folder)
            assert launched.returncode == 0, launched.stderr
        assert result(run)["world"] == world
        return run

    def first_losses(self, norm: str, world: int) -> list[float]:
        """The loss of each rank's slice of the first batch, by the untrained network."""
        config = load(self.config, [f"model.norm={norm}"])
        runtime = Runtime(config.train)
        store = sources.open_dataset(config.data)
        model = parts.build_model(config, store, runtime)
        loader, _ = parts.training_loader(
            config, store, parts.training_plan(config, store), runtime
        )
        (pictures,) = loader.batches(0, 1)
        runtime.close()
        shares = zip(pictures.images.chunk(world), pictures.labels.chunk(world), strict=True)
        return [F.cross_entropy(model(images), labels).item() for images, labels in shares]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A generated set with as many test pictures as the real one."""
    folder = tmp_path_factory.mktemp("runs")
    pictures = write_zip(folder / "pictures.zip", make_pictures(64 * STEPS, TEST_PICTURES))
    data = {
        "dataset": "folder", "path": str(pictures), "validation": 0,
        "loader": "resident", "augment": ["crop", "flip"], "batch_size": 64,
    }  # fmt: skip
    settings = {
        "data": data,
        "model": {"widths": [16, 32]},
        "optim": {"lr": 0.02},
        "train": {
            "epochs": 1,
            "device": "cpu",
            "precision": "fp32",
            "compile": False,
            "log_every": "1steps",
        },
    }
    (folder / "config.yaml").write_text(json.dumps(settings))
    return Runs(folder)


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "train"]
    assert [record["step"] for record in records[:STEPS]] == list(range(1, STEPS + 1))
    return [record["loss"] for record in records[:STEPS]]


def largest_difference(one: Path, other: Path) -> float:
    pairs = zip(losses(one), losses(other), strict=True)
    return max(abs(first - second) for first, second in pairs)


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


def test_two_ranks_have_the_losses_of_one_process(runs: Runs) -> None:
    one, two = runs.train(1, "none"), runs.train(2, "none")
    assert sum(losses(one)[-5:]) < sum(losses(one)[:5]) - 0.1  # it does train
    assert largest_difference(one, two) <= 1e-4


def test_gradients_may_be_summed_in_half_the_bytes(runs: Runs) -> None:
    whole, half = runs.train(2, "none"), runs.train(2, "none", "bf16")
    assert 0 < largest_difference(whole, half) < 0.02


def test_ghost_batches_have_the_losses_of_one_process_on_ranks_and_in_parts(runs: Runs) -> None:
    ghosts = ("model.family=whitened_cnn", "model.ghost_batch=16", "optim.lr=0.005")
    whole = runs.train_changed(1, *ghosts, "train.accumulate=auto")  # too few to be cut
    assert sum(losses(whole)[-5:]) < sum(losses(whole)[:5]) - 0.1  # it does train
    for world, accumulate in [(1, 4), (2, 1), (2, 2)]:
        shared = runs.train_changed(world, *ghosts, f"train.accumulate={accumulate}")
        assert 0 < largest_difference(whole, shared) <= 1e-4  # rounded elsewhere, so really cut


def test_batch_norm_on_ranks_is_close_to_one_process_but_not_equal(runs: Runs) -> None:
    """Each rank normalises by the mean and deviation of its own slice of the batch.

    With two ranks those are the statistics of half as many pictures, so the normalised values,
    and with them losses and gradients, are other ones than those of the whole batch: not a
    rounding error but a different, equally sound estimate. The first step shows it: its loss on
    two ranks is the mean of the losses of the two slices, each normalised by itself.
    `SyncBatchNorm` would make them equal at the price of two collectives for each layer and step.
    """
    one, two = runs.train(1, "batch"), runs.train(2, "batch")
    assert 1e-4 < largest_difference(one, two) < 0.2

    whole, slices = runs.first_losses("batch", world=1), runs.first_losses("batch", world=2)
    assert whole == pytest.approx([losses(one)[0]], abs=1e-5)
    assert sum(slices) / 2 == pytest.approx(losses(two)[0], abs=1e-5)
    assert abs(losses(one)[0] - losses(two)[0]) > 1e-4


def test_ranks_score_batch_norm_with_the_statistics_of_the_checkpoint(runs: Runs) -> None:
    """Those are the main rank's; by itself every rank would score with its own."""
    run = runs.train(2, "batch")
    score = evaluate(run)
    assert score["accuracy"] == result(run)["test_accuracy"]
    assert score["loss"] == pytest.approx(result(run)["test_loss"], rel=1e-6)


def test_every_test_picture_counts_once_on_any_number_of_ranks(runs: Runs) -> None:
    """Three ranks need padding: neither 10,000 pictures nor a batch of 1,000 is a multiple."""
    run = runs.train(2, "none")
    alone = evaluate(run)
    three = on_ranks(3, "-m", "fasttrain", "evaluate", run, "--json", folder=runs.folder)
    assert three.returncode == 0, three.stderr
    scores = [alone, json.loads(three.stdout)]
    assert [score["count"] for score in scores] == [TEST_PICTURES] * 2
    assert result(run)["test_count"] == TEST_PICTURES  # counted by two ranks
    accuracy, loss = result(run)["test_accuracy"], result(run)["test_loss"]
    assert [score["accuracy"] for score in scores] == [accuracy] * 2
    assert 0.15 < accuracy < 0.99  # so that equal scores are no accident
    assert [score["loss"] for score in scores] == pytest.approx([loss] * 2, rel=1e-6)


RESUMES_ON_ONE = """
import os, sys
from fasttrain.cli import main

main([*sys.argv[1:], *(["--resume"] if os.environ["RANK"] == "0" else [])])
"""


def test_what_the_first_machine_says_of_resuming_holds_for_all(runs: Runs) -> None:
    run = runs.folder / "resumed"
    script = runs.folder / "resumes_on_one.py"
    script.write_text(RESUMES_ON_ONE)
    words = ("train", runs.config, "model.norm=none", "--run-dir", run)
    shutil.copytree(runs.train(2, "none"), run)
    (run / "result.json").unlink()
    launched = on_ranks(2, script, *words, folder=runs.folder)
    assert launched.returncode == 0, launched.stderr
    assert f"goes on at step {STEPS};" in launched.stderr
