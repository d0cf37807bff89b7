"""Noticing that nothing happens any more."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from fasttrain.files import explain_write_errors

_SLICE = 0.5  # seconds between two looks; each sets an alarm, which starts a thread
_GRACE = 5.0  # seconds in which a process that hangs may still say so
_HALT = 4  # times `seconds`: the alarm cannot tell a held interpreter from a halted process


class Watchdog:
    """Ends a process that hangs, so that its launcher can start it again.

    When `alive` has not been called for `seconds`, the stack of every thread is written to `file`,
    the end is told, and the process ends with exit code 1. Where even that cannot be done, a thread
    of the interpreter's own (`faulthandler`) does it, without a word: a moment later where the disk
    hangs, and after four times as long where the interpreter's lock is held.

    Time in which the process stood still, as after Ctrl-Z or `scontrol suspend`, does not count, up
    to those four times. That is judged by a thread of its own, which a held interpreter holds, too.

    Args:
        seconds: How long nothing may happen; `None` for ever.
        file: Where the stacks go; it is taken away again when nothing was written.
        ends: Is told, in one line, that the process is about to end.
        halts: Whether it may stand still. Ranks that wait for each other must agree on the time.

    Attributes:
        seconds: As given.
        step: The last step that was reported.
        alive_at: When that was, or what else showed a sign of life, in `time.monotonic` seconds.
    """

    def __init__(
        self,
        seconds: float | None,
        file: Path,
        ends: Callable[[str], None] = lambda line: None,  # noqa: ARG005 - silent
        halts: bool = True,
    ) -> None:
        self.seconds, self.step = seconds, 0
        self._path, self._ends, self._halts = file, ends, halts
        self.alive_at = time.monotonic()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def __enter__(self) -> Watchdog:
        if self.seconds is not None:
            with explain_write_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                if self._path.exists() and self._path.stat().st_size:  # of an earlier process
                    self._path.rename(self._path.with_suffix(f".{time.time_ns()}.txt"))
                file = self._path.open("w")
            self.alive()
            self._thread = threading.Thread(
                target=self._watch, args=(self.seconds, file), name="watchdog", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def idle(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self.alive_at

    def alive(self, step: int | None = None) -> None:
        """Start to wait anew; cheap enough for every step.

        Args:
            step: How many are done, where that has changed.
        """
        self.alive_at = time.monotonic()
        if step is not None:
            self.step = step

    def _watch(self, seconds: float, file: TextIO) -> None:
        piece, now = min(_SLICE, seconds / 4), time.monotonic()
        _set_alarm(_HALT * seconds, file)
        while not self._over.wait(piece):
            before, now = now, time.monotonic()
            stood = now - before - piece
            if self._halts and stood > piece:  # overslept by far
                self.alive_at = min(self.alive_at + stood, now)
            if now - self.alive_at >= seconds:
                self._end(seconds, file)
            _set_alarm(_HALT * seconds, file)
        faulthandler.cancel_dump_traceback_later()
        file.close()
        with suppress(OSError):  # of a file system in trouble
            self._path.unlink(missing_ok=True)

    def _end(self, seconds: float, file: TextIO) -> None:
        _set_alarm(min(_GRACE, seconds), file)
        line = f"Timeout: nothing has happened for {seconds:.0f} s after step {self.step}"
        print(f"{line}!", file=file, flush=True)
        faulthandler.dump_traceback(file)
        self._ends(
            f"nothing has happened for {seconds:.0f} s after step {self.step} (train.watchdog): "
            "another process or the network does not answer, or this machine hangs; the stacks "
            f"stand in {self._path}; go on with --resume"
        )
        os._exit(1)


def _set_alarm(seconds: float, file: TextIO) -> None:
    """Have the interpreter end the process with its stacks, unless the alarm is set anew before."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)
