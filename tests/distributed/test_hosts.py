"""Two hosts train as one does, and outlive a cut of the network between them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fasttrain.observe import journal
from fasttrain.use.status import status
from tests.distributed.endings import ENDLESS, RUN, Run, launched
from tests.distributed.hosts import Hosts, on_cores, two_hosts

STEPS, TEST_PICTURES = 300, 2000  # of the generated set
SETTINGS = {
    **ENDLESS,
    "data": {**ENDLESS["data"], "validation": 10_000 - 12 * STEPS},
    "train": {**ENDLESS["train"], "epochs": 1, "watchdog": "0.3min"},
}
SOON = 90  # seconds: five times the watchdog's, and far less than torch's own half an hour


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with two_hosts() as made:
        yield made


def said(folder: Path, hosts: Hosts) -> list[str]:
    """What was said on each host."""
    return [(folder / f"{host.name}.txt").read_text() for host in (hosts.one, hosts.other)]


def weights(folder: Path) -> bytes:
    return (folder / f"run/checkpoints/step-{STEPS:08d}/model.safetensors").read_bytes()


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return found


def losses(folder: Path) -> list[tuple[int, float, str]]:
    return [
        (one["step"], one["loss"], one["batches"])
        for one in journal.read(folder / "run" / "metrics.jsonl")
        if one["kind"] == "train"
    ]


def test_the_doctor_sees_both_hosts(hosts: Hosts, tmp_path: Path) -> None:
    command = hosts.launched("-m", "fasttrain", "doctor", "--distributed", "--timeout", "30")
    with Run(tmp_path, SETTINGS, command).start() as run:
        code = run.wait_until_gone()
    first, second = said(tmp_path, hosts)
    assert code == 0, first + second
    for rank, host in enumerate((hosts.one, hosts.other)):
        assert f"│ {rank}    │ {host.name} " in first
    assert "sums over 2 ranks: right; " in first
    assert "fasttrain doctor" not in second


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks on one host, which has the cores of both."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with Run(folder, SETTINGS, on_cores(launched(2), 0, 1)).start() as run:
        assert run.wait_until_gone() == 0, run.log
    return folder


@pytest.mark.long
def test_two_hosts_train_as_one_host_with_two_ranks(
    hosts: Hosts, undisturbed: Path, tmp_path: Path
) -> None:
    with Run(tmp_path, SETTINGS, hosts.launched(*RUN)).start() as run:
        assert run.wait_until_gone() == 0, said(tmp_path, hosts)
    assert result(tmp_path)["world"] == 2
    assert result(tmp_path)["test_count"] == TEST_PICTURES
    assert losses(tmp_path) == losses(undisturbed)
    assert weights(tmp_path) == weights(undisturbed)
    scores = ("test_accuracy", "test_loss", "val_accuracy", "val_loss")
    assert [result(tmp_path)[name] for name in scores] == [
        result(undisturbed)[name] for name in scores
    ]


@pytest.mark.long
def test_a_cut_link_ends_both_sides_clearly_and_the_run_goes_on_when_it_is_back(
    hosts: Hosts, undisturbed: Path, tmp_path: Path
) -> None:
    with Run(tmp_path, SETTINGS, hosts.launched(*RUN)).start() as run:
        run.wait_until_trained(50)
        hosts.plug(joined=False)
        start = time.monotonic()
        try:
            assert run.wait_until_gone() != 0
        finally:
            hosts.plug(joined=True)
        assert time.monotonic() - start < SOON
        assert run.steps() < STEPS
        for rank, text in enumerate(said(tmp_path, hosts)):
            (line,) = [line for line in text.splitlines() if line.startswith("fasttrain (")]
            assert line.startswith(f"fasttrain (rank {rank}): ")
            assert "nothing has happened for 18 s after step " in line
            assert "--resume" in line
            stacks = (tmp_path / "run" / f"stacks-rank{rank}.txt").read_text()
            assert "in _train" in stacks
        assert run.outcome["outcome"] == "failed"
        assert "nothing has happened" in run.outcome["message"]
        found = status(tmp_path / "run")
        assert (found.state, found.host) == ("crashed", hosts.one.name)

        run.start()
        assert run.wait_until_gone() == 0, said(tmp_path, hosts)
        assert "goes on at step" in said(tmp_path, hosts)[0]
    assert status(tmp_path / "run").restarts == 1
    assert losses(tmp_path) == losses(undisturbed)
    assert weights(tmp_path) == weights(undisturbed)
    assert result(tmp_path)["test_count"] == TEST_PICTURES
