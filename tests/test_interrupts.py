"""Being asked to stop, whatever the main thread is doing."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from fasttrain.interrupts import SIGNALS, StopRequest

# A mutex that is locked twice keeps its thread in C for ever, as a collective does whose other
# ranks have gone; a sleep would be cut short by the signal.
_STUCK = """
import ctypes
from fasttrain import interrupts
interrupts._ONE_REQUEST = 0
with interrupts.StopRequest():
    print("ready", flush=True)
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_and_nothing_else_happens(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        wait_for(lambda: stop.signal is not None)
        assert stop.signal == number.name


@pytest.mark.parametrize(("terminal", "rank"), [(True, "0"), (True, "1"), (False, "0")])
def test_who_presses_ctrl_c_is_told_that_the_step_ends_first(
    terminal: bool, rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("RANK", rank)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: stop.signal is not None)
    told = "SIGINT: stopping behind this step; a second one, 3 s later, ends at once\n"
    assert screen.getvalue() == (told if terminal and rank == "0" else "")


@pytest.mark.filterwarnings("error")
def test_without_standard_error_the_listening_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: stop.signal is not None)


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.skipif(sys.platform != "linux", reason="the mutex is Linux's")
def test_a_second_signal_ends_a_process_that_hangs_in_a_library() -> None:
    command = [sys.executable, "-c", _STUCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
