"""A run that goes on with another number of ranks: the same batches, nearly the same weights."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from fasttrain.observe import journal
from tests.distributed.endings import ENDLESS, PLAIN, Run, launched

STEPS = 200
SETTINGS = {
    **ENDLESS,
    "data": {**ENDLESS["data"], "validation": 10_000 - 12 * STEPS},
    "model": {"widths": [64, 64], "norm": "none"},  # large enough to be stopped in between
    "optim": {"name": "sgd", "lr": 0.001},
    "train": {**ENDLESS["train"], "epochs": 1},
    "checkpoint": {"every": "20steps", "keep": 99},
}


def weights(folder: Path, step: int) -> dict[str, Tensor]:
    return load_file(folder / f"run/checkpoints/step-{step:08d}/model.safetensors")


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest one of any two numbers."""
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def batches(folder: Path) -> list[tuple[int, str]]:
    records = journal.read(folder / "run" / "metrics.jsonl")
    return [(one["step"], one["batches"]) for one in records if one["kind"] == "train"]


@pytest.mark.long
def test_two_ranks_then_one_then_three_train_on_the_batches_of_one(tmp_path: Path) -> None:
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    with Run(tmp_path / "one", SETTINGS, PLAIN).start() as run:
        assert run.wait_until_gone() == 0, run.log
    for command, until in ((launched(2), 40), (PLAIN, 90)):
        with Run(tmp_path / "many", SETTINGS, command).start() as run:
            run.wait_until_trained(until)
            run.send(signal.SIGTERM)
            run.wait_until_gone()
            assert run.outcome["outcome"] == "stopped", run.log
    with Run(tmp_path / "many", SETTINGS, launched(3)).start() as run:
        assert run.wait_until_gone() == 0, run.log
        assert "3 x cpu" in run.log

    assert batches(tmp_path / "many") == batches(tmp_path / "one")
    assert len(batches(tmp_path / "one")) == STEPS / 5
    one, many = weights(tmp_path / "one", STEPS), weights(tmp_path / "many", STEPS)
    print(f"weights differ by {distance(one, many):.1e} at most")  # noqa: T201 - for the README
    assert distance(one, many) <= 1e-5
    assert distance(one, weights(tmp_path / "one", 20)) > 1e-3  # they have moved far more
