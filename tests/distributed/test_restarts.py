"""A rank that dies or hangs: the launcher starts all of them again, and the end is the same."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fasttrain.observe import journal
from tests.distributed.endings import ENDLESS, Run, launched

RESTARTS = ("--rdzv_backend", "c10d", "--max_restarts", "3")
# Without it the restarted ranks find keys of the dead ones in the store that they share with the
# launcher (pytorch issue 135712).
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def settings(**train: Any) -> dict[str, Any]:
    ends = {"epochs": 1, "log_every": "5steps", **train}
    data = {**ENDLESS["data"], "validation": 10_000 - 12 * 150}
    return {**ENDLESS, "data": data, "train": {**ENDLESS["train"], **ends}}


def losses(folder: Path) -> list[tuple[int, float, str]]:
    return [
        (one["step"], one["loss"], one["batches"])
        for one in journal.read(folder / "run" / "metrics.jsonl")
        if one["kind"] == "train"
    ]


def weights(folder: Path) -> bytes:
    return (folder / "run/checkpoints/step-00000150/model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    with Run(folder, settings(), launched(2)).start() as run:
        assert run.wait_until_gone() == 0, run.log
    return folder


@pytest.mark.parametrize(
    "times", [1, pytest.param(10, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_a_killed_rank_is_started_again_and_the_run_ends_as_the_undisturbed_one(
    times: int, undisturbed: Path, tmp_path: Path
) -> None:
    for count in range(times):
        folder = tmp_path / str(count)
        folder.mkdir()
        with Run(folder, settings(), launched(2, *RESTARTS)).start(**OWN_STORE) as run:
            run.wait_until_trained(25 + 5 * count)
            run.ranks()[count % 2].kill()
            assert run.wait_until_gone() == 0, run.log
            assert run.outcome["outcome"] == "complete"
        assert "goes on at step" in run.log
        assert losses(folder) == losses(undisturbed)
        assert weights(folder) == weights(undisturbed)


@pytest.mark.long
def test_a_rank_that_stands_still_ends_the_job_with_the_stacks_of_the_others(
    tmp_path: Path,
) -> None:
    settled = {**ENDLESS, "train": {**ENDLESS["train"], "watchdog": "0.07min"}}
    command = launched(2)
    with Run(tmp_path, settled, command).start(PET_SHUTDOWN_TIMEOUT="1") as run:
        run.wait_until_trained(15)
        start = time.monotonic()
        run.ranks()[1].send_signal(signal.SIGSTOP)
        assert run.wait_until_gone() != 0
        assert time.monotonic() - start < 60
        stacks = (tmp_path / "run" / "stacks-rank0.txt").read_text()
    assert "Timeout" in stacks
    assert "_train" in stacks
