"""One whole `fasttrain train`, in a process of its own, that survives being cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fasttrain.config import load
from fasttrain.errors import StoppedError, UserError
from fasttrain.files import read_json, write_text
from fasttrain.interrupts import SIGNALS
from fasttrain.observe.folder import RunFolder

_ATTEMPTS = "attempts.json"  # the seconds of every process that worked on the run


def train(
    config: Path,
    overrides: list[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train `config` in `folder`, or go on with what is there; return what it came to.

    A run that is already finished is not repeated. `wall_seconds` is the time of all processes
    that worked on it, from start to exit, `commit` what the last of them ran from. `environment`
    is added to theirs.

    Raises:
        UserError: there is another run, or this one fails; it says itself why.
        StoppedError: a signal came meanwhile, and the run was told.
    """
    attempts = folder.parent / f"{folder.name}-{_ATTEMPTS}"
    seconds: list[float] = json.loads(attempts.read_text()) if attempts.exists() else []
    run = RunFolder(folder)
    if run.config.exists() and load(run.config) != load(config, overrides):
        raise UserError(f"{folder} holds a run with other settings; choose another --keep")
    if not run.result.exists():
        command = [sys.executable, "-m", "fasttrain", "train", str(config), *overrides]
        resume = ["--resume"] if run.config.exists() else []
        start = time.perf_counter()
        try:
            code = _run([*command, "--run-dir", str(folder), *resume], environment or {})
        finally:
            seconds.append(time.perf_counter() - start)
            write_text(attempts, json.dumps(seconds))
        if code:
            raise UserError(f"the run in {folder} ended with exit code {code}")
    return {
        **json.loads(run.result.read_text()),
        "overrides": overrides,
        "wall_seconds": sum(seconds),
        "attempts": len(seconds),
        "commit": (read_json(run.environment) or {}).get("commit"),
    }


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit code; a signal is passed on, and waits here for the run's last checkpoint."""
    child: subprocess.Popen[bytes] | None = None
    heard: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        heard.append(number)
        if child is not None:
            child.send_signal(number)

    with _handling(pass_on):
        child = subprocess.Popen(command, env={**os.environ, **environment})  # noqa: S603 - our own
        for number in heard:  # while it was being started
            child.send_signal(number)
        code = child.wait()
    if heard:
        name = signal.Signals(heard[0]).name
        raise StoppedError(f"{name} stopped the benchmark; what lies in a folder of --keep goes on")
    return code


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have what stops a run handled so meanwhile; handlers belong to the main thread."""
    with ExitStack() as undo:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                undo.callback(signal.signal, number, signal.signal(number, handler))
        yield
