"""`launch/node.sh`, which schedulers start: fasttrain's exit codes, and a checkpoint at the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.distributed.endings import Run
from tests.distributed.launching import ROOT
from tests.slurm.jobs import SETTINGS, end

NODE = ["bash", str(ROOT / "launch" / "node.sh"), "run.yaml"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script starts what an activated environment offers."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)


@pytest.mark.long
def test_stopped_refused_and_complete(tmp_path: Path) -> None:
    """The codes of two ranks, which their launcher swallows."""
    ranks = {"RUN_DIR": "run", "PROCESSES": "2"}
    with Run(tmp_path, SETTINGS, NODE).start(**ranks) as run:
        run.wait_until_trained(15)
        run.send(signal.SIGTERM)
        assert run.wait_until_gone() == 75, run.log
        assert run.outcome["outcome"] == "stopped"
    with Run(tmp_path, SETTINGS, [*NODE, "optim.lr=0.2"]).start(**ranks) as run:
        assert run.wait_until_gone() == 2, run.log  # though the outcome still says 75
        assert run.outcome["outcome"] == "stopped"
    with Run(tmp_path, SETTINGS, NODE).start(**ranks) as run:
        assert run.wait_until_gone() == 0, run.log
        assert end(tmp_path / "run")["outcome"] == ("complete", 0)
    with Run(tmp_path, SETTINGS, NODE).start(**ranks, NODES="2", NODE_RANK="1") as run:
        assert run.wait_until_gone() == 0, run.log  # and did not wait for another node
        assert "is complete: nothing is left to do" in run.log


@pytest.mark.long
def test_a_killed_rank_is_a_crash(tmp_path: Path) -> None:
    with Run(tmp_path, SETTINGS, NODE).start(RUN_DIR="run", PROCESSES="2") as run:
        run.wait_until_trained(15)
        run.ranks()[0].kill()
        assert run.wait_until_gone() == 1, run.log


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [("optim.lrr=1", 2, "did you mean 'lr'?"), ("optim.lr=1e30", 3, "diverged")],
)
def test_what_is_not_worth_another_try(setting: str, code: int, said: str, tmp_path: Path) -> None:
    with Run(tmp_path, SETTINGS, [*NODE, setting]).start(RUN_DIR="run") as run:
        assert run.wait_until_gone() == code, run.log
        assert said in run.log


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare")
def test_as_the_first_process_of_a_container_it_stops_with_a_checkpoint(tmp_path: Path) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", *NODE]
    if subprocess.run([*command[:4], "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to make a process namespace")
    started = tmp_path / "started"
    with Run(tmp_path, SETTINGS, command).start(RUN_DIR="run", STARTED=str(started)) as run:
        run.wait_until_trained(15)
        assert started.exists()
        (first,) = [one for one in run.alive() if one.cmdline()[: len(NODE)] == NODE]
        first.send_signal(signal.SIGTERM)
        assert run.wait_until_gone() == 75, run.log
        assert run.outcome["outcome"] == "stopped"


@pytest.mark.parametrize(("left", "code"), [("result.json", 0), ("outcome.json", 1)])
def test_a_signal_to_a_complete_run_is_no_crash(
    left: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for what is otherwise a matter of moments: a trainer that has ended."""
    trainer = tmp_path / "bin" / "python"
    trainer.parent.mkdir()
    trainer.write_text(
        f"#!/bin/sh\nsleep 60 &\ntrap 'kill $!; exit 143' TERM\nmkdir run; : > run/{left}\nwait\n"
    )
    trainer.chmod(0o700)
    monkeypatch.setenv("PATH", str(trainer.parent), prepend=os.pathsep)
    with Run(tmp_path, SETTINGS, NODE).start(RUN_DIR="run") as run:
        run.wait_until((tmp_path / "run" / left).exists)
        run.send(signal.SIGTERM)
        assert run.wait_until_gone() == code, run.log


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RUN_DIR": ""}, "RUN_DIR is missing"),
        ({"PROCESSES": "0"}, "PROCESSES=0 must be a whole number from 1 up"),
        ({"PET_NPROC_PER_NODE": "auto"}, "PROCESSES=auto must be a whole number from 1 up"),
        ({"NODES": "two"}, "NODES=two must be a whole number from 1 up"),
        ({"NODES": "2", "MASTER_PORT": "any"}, "MASTER_PORT=any must be a whole number from 0 up"),
        ({"NODES": "2", "NODE_RANK": "a"}, "NODE_RANK=a must be a whole number from 0 up"),
    ],
)
def test_an_environment_that_cannot_be_meant_is_refused(
    environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    with Run(tmp_path, SETTINGS, NODE).start(**{"RUN_DIR": "run", **environment}) as run:
        assert run.wait_until_gone() == 2, run.log
        (line,) = run.log.splitlines()
        assert line.startswith(f"node.sh: {said}")
    assert not (tmp_path / "run").exists()


def test_the_liveness_probe_fails_only_on_a_heartbeat_that_stopped(tmp_path: Path) -> None:
    started, beat = tmp_path / "started", tmp_path / "heartbeat.json"

    def alive() -> bool:
        probe = ["bash", str(ROOT / "launch/kubernetes/alive.sh"), "40"]
        environment = {**os.environ, "RUN_DIR": str(tmp_path), "STARTED": str(started)}
        return subprocess.run(probe, env=environment, check=False).returncode == 0

    def touch(file: Path, minutes_ago: float) -> None:
        file.touch()
        os.utime(file, times=(time.time() - 60 * minutes_ago,) * 2)

    touch(started, 100)
    assert alive()  # no beat yet
    touch(beat, 200)
    assert alive()  # one of an earlier start
    touch(beat, 30)
    assert alive()
    touch(beat, 50)
    assert not alive()
