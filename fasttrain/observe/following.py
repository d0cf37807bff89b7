"""Processes that follow a run's journal, so that what they do can never hold up training."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from fasttrain.observe.journal import Sink

_HURRIED = 5.0  # seconds that the end of a run waits when a scheduler is about to kill it


class Follower(Sink):
    """Starts a module as a process that reads `metrics.jsonl` by itself, and takes leave of it.

    It ends when this process does, however that happens: its standard input ends then.

    Args:
        module: Our own module.
        words: What it is told.
        patience: Seconds that the end of a run waits for it.
        environment: What is added to its environment.
        stdout: Where what it prints goes, as `subprocess.Popen` takes it.
    """

    def __init__(
        self,
        module: str,
        words: Sequence[str],
        patience: float,
        environment: Mapping[str, str] | None = None,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        self._patience = patience
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the trainer; what it leaves in the journal is still to be dealt with.
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )

    def hurry(self) -> None:
        """Wait only a moment for the process."""
        self._patience = _HURRIED

    def close(self) -> None:
        """Let the process finish, but not for ever."""
        if self._process.stdin is not None:
            # Its end alone may not be seen: helpers of the trainer may have inherited the pipe.
            with suppress(BrokenPipeError):
                self._process.stdin.write(b"\n")
                self._process.stdin.close()
        try:
            self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)


def outlive_signals() -> None:
    """In a follower: what stops the trainer is not meant for it; it ends after the trainer."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def has_ended(within: float) -> bool:
    """In a follower: wait up to so many seconds; say whether the trainer has gone."""
    ready, _, _ = select.select([sys.stdin], [], [], within)
    return bool(ready)  # a last word, or the end of what would have carried it
