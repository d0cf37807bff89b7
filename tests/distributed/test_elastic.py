"""A run that goes on with another number of ranks: the same batches, nearly the same weights."""

from __future__ import annotations

import signal
from pathlib import Path

from safetensors.torch import load_file

from fasttrain.observe import journal
from tests.distributed.endings import ENDLESS, PLAIN, Run, launched

STEPS, EPOCHS = 1600, 2
SETTINGS = {
    **ENDLESS,
    "data": {**ENDLESS["data"], "validation": 10_000 - 12 * STEPS // EPOCHS},
    "train": {**ENDLESS["train"], "epochs": EPOCHS},
}


def batches(folder: Path) -> list[tuple[int, str]]:
    records = journal.read(folder / "run" / "metrics.jsonl")
    return [(one["step"], one["batches"]) for one in records if one["kind"] == "train"]


def test_two_ranks_then_one_then_three_train_on_the_batches_of_one(tmp_path: Path) -> None:
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    with Run(tmp_path / "one", SETTINGS, PLAIN).start() as run:
        assert run.wait_until_gone() == 0, run.log
    for command, until in ((launched(2), 100), (PLAIN, 250)):
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
    last = f"run/checkpoints/step-{STEPS:08d}/model.safetensors"
    one, many = load_file(tmp_path / "one" / last), load_file(tmp_path / "many" / last)
    apart = max(float((one[name] - many[name]).abs().max()) for name in one)
    print(f"weights differ by {apart:.1e} at most")  # noqa: T201 - for the README
    assert apart <= 1e-5
