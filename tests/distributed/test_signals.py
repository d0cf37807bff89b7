"""Asked to stop, under any launcher: a checkpoint on disk, no process left, no step lost."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fasttrain.training import checkpoint
from tests.distributed.endings import ENDLESS, PLAIN, Run, launched, torchrun
from tests.distributed.launching import ROOT

LAUNCHERS = {
    "plain": PLAIN,
    "accelerate, one process": launched(1),
    "accelerate, two ranks": launched(2),
    "torchrun, two ranks": torchrun(2),
}
SOON = 15  # seconds: what a scheduler's grace period must allow for at least


def stopped_at(run: Run) -> int:
    """The step that the outcome names; its checkpoint is whole."""
    assert run.outcome["outcome"] == "stopped", run.log
    assert run.outcome["exit_code"] == 75
    found = re.search(r"at step (\d+) of", run.outcome["message"])
    assert found is not None
    newest, passed_over = checkpoint.newest(run.folder / "run" / "checkpoints")
    assert (newest and int(newest.name[5:]), passed_over) == (int(found[1]), [])
    return int(found[1])


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ("plain", signal.SIGTERM),
        pytest.param("plain", signal.SIGINT, marks=pytest.mark.long),
        pytest.param("plain", signal.SIGUSR1, marks=pytest.mark.long),
        pytest.param("accelerate, one process", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("accelerate, one process", signal.SIGKILL, marks=pytest.mark.long),
        ("accelerate, two ranks", signal.SIGTERM),
        pytest.param("accelerate, two ranks", signal.SIGUSR1, marks=pytest.mark.long),
        pytest.param("torchrun, two ranks", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("torchrun, two ranks", signal.SIGKILL, marks=pytest.mark.long),
    ],
)
def test_a_signal_leaves_a_checkpoint_and_no_process(
    launcher: str, number: signal.Signals, tmp_path: Path
) -> None:
    with Run(tmp_path, ENDLESS, LAUNCHERS[launcher]).start() as run:
        run.wait_until_trained(15)
        run.send(number)
        start = time.monotonic()
        code = run.wait_until_gone()
        assert time.monotonic() - start < SOON, run.log
        assert code == 75 or launcher != "plain"
        done = stopped_at(run)
        assert done >= 15

        run.start()
        run.wait_until_trained(done + 5)
        assert f"goes on at step {done};" in run.log
        run.send(signal.SIGTERM)
        run.wait_until_gone()


def test_helper_processes_of_a_loader_do_not_hold_up_the_end(tmp_path: Path) -> None:
    data = {**ENDLESS["data"], "loader": "reference", "workers": 1}
    with Run(tmp_path, {**ENDLESS, "data": data}, PLAIN).start() as run:
        run.wait_until_trained(15)
        run.send(signal.SIGTERM)
        assert run.wait_until_gone(SOON) == 75
        stopped_at(run)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare")
def test_as_the_first_process_of_a_container_it_hears_signals_too(tmp_path: Path) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", *PLAIN]
    if subprocess.run([*command[:4], "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to make a process namespace")
    with Run(tmp_path, ENDLESS, command).start() as run:
        run.wait_until_trained(15)
        (rank,) = run.ranks()
        rank.send_signal(signal.SIGTERM)
        assert run.wait_until_gone() == 75
        stopped_at(run)


TWICE = """
import signal, sys, time
from fasttrain.interrupts import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
        if stop.signal:
            print(stop.signal, flush=True)
            stop.signal and time.sleep(60)
"""


def test_a_second_request_ends_the_process_at_once_and_an_echo_does_not() -> None:
    command = [sys.executable, "-c", TWICE]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        process.send_signal(signal.SIGINT)  # as a launcher passes Ctrl-C on
        time.sleep(3.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 128 + signal.SIGINT
