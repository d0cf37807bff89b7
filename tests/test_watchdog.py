"""A process that hangs is ended, and says so where it still can."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fasttrain.watchdog import Watchdog

SCRIPT = """
import ctypes, sys, time
from pathlib import Path
from fasttrain.watchdog import Watchdog

def hang():
    {hang}

ends = lambda line: print(line, flush=True)
with Watchdog(0.4, Path(sys.argv[1]), ends) as watchdog:
    for step in range(1, 8):
        watchdog.alive(step)
        time.sleep(0.1)
    hang()
"""
WAITS = "time.sleep(60)"
HOLDS_THE_LOCK = "ctypes.PyDLL(None).sleep(60)"  # of the interpreter: no Python runs any more


@pytest.mark.parametrize(("hang", "told"), [(WAITS, True), (HOLDS_THE_LOCK, False)])
def test_a_process_that_hangs_leaves_its_stacks(hang: str, told: bool, tmp_path: Path) -> None:
    stacks = tmp_path / "folder" / "stacks.txt"
    command = [sys.executable, "-c", SCRIPT.format(hang=hang), str(stacks)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "Timeout" in stacks.read_text()
    assert "in hang" in stacks.read_text()
    if told:
        assert ended.stdout.startswith("nothing has happened for 0 s after step 7 ")
        assert ended.stdout.count("\n") == 1
        assert str(stacks) in ended.stdout


HALTED = """
import sys, time
from pathlib import Path
from fasttrain.watchdog import Watchdog

with Watchdog(2.0, Path(sys.argv[1]), print) as watchdog:
    print("begun", flush=True)
    for step in range(1, 12):
        watchdog.alive(step)
        time.sleep(0.3)
"""


def test_a_process_that_is_halted_and_goes_on_has_not_hung(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HALTED, str(tmp_path / "stacks.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        assert process.wait(50) == 0
        assert process.stdout.read() == ""
    assert list(tmp_path.iterdir()) == []


def test_it_leaves_nothing_when_all_went_well_and_keeps_what_an_earlier_one_left(
    tmp_path: Path,
) -> None:
    stacks = tmp_path / "stacks.txt"
    stacks.write_text("of a process before this one")
    with Watchdog(60, stacks) as watchdog:
        watchdog.alive(3)
    assert watchdog.step == 3
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("stacks.")
    assert kept.read_text() == "of a process before this one"


def test_without_a_time_it_only_counts(tmp_path: Path) -> None:
    with Watchdog(None, tmp_path / "stacks.txt") as watchdog:
        before = watchdog.alive_at
        watchdog.alive(5)
        assert (watchdog.step, list(tmp_path.iterdir())) == (5, [])
        assert watchdog.alive_at >= before
