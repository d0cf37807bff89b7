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

_BETWEEN_CALLS = 1.0  # seconds: setting the alarm starts a thread
_GRACE = 5.0  # seconds in which a process that hangs may still say so


class Watchdog:
    """Ends a process that hangs, so that its launcher can start it again.

    When `alive` has not been called for `seconds`, the stack of every thread is written to `file`,
    the end is told, and the process ends with exit code 1. Where even that cannot be done, because
    the interpreter's lock is held or the disk hangs, a thread of the interpreter's own
    (`faulthandler`) does it a moment later, without a word.

    Args:
        seconds: How long nothing may happen; `None` for ever.
        file: Where the stacks go; it is taken away again when nothing was written.
        ends: Is told, in one line, that the process is about to end.

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
    ) -> None:
        self.seconds, self.step = seconds, 0
        self._path, self._ends = file, ends
        self.alive_at, self._set = time.monotonic(), 0.0
        self._file: TextIO | None = None  # open while it watches
        self._over = threading.Event()

    def __enter__(self) -> Watchdog:
        if self.seconds is not None:
            with explain_write_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                if self._path.exists() and self._path.stat().st_size:  # of an earlier process
                    self._path.rename(self._path.with_suffix(f".{time.time_ns()}.txt"))
                self._file = self._path.open("w")
            self.alive()
            watch = (self.seconds, self._file)
            threading.Thread(target=self._watch, args=watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Watch no more."""
        file, self._file = self._file, None
        if file is not None:
            self._over.set()
            faulthandler.cancel_dump_traceback_later()
            file.close()
            with suppress(OSError):  # of a file system in trouble
                self._path.unlink(missing_ok=True)

    @property
    def idle(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self.alive_at

    def alive(self, step: int | None = None) -> None:
        """Start to wait anew; cheap enough for every step.

        Args:
            step: How many are done, where that has changed.
        """
        now = self.alive_at = time.monotonic()
        if step is not None:
            self.step = step
        if self._file is None or self.seconds is None:
            return
        if now - self._set < min(_BETWEEN_CALLS, self.seconds / 4):
            return
        self._set = now
        patience = self.seconds + min(_GRACE, self.seconds)
        faulthandler.dump_traceback_later(patience, exit=True, file=self._file)

    def _watch(self, seconds: float, file: TextIO) -> None:
        while not self._over.wait(max(seconds - self.idle, 0.0)):
            if self.idle >= seconds:
                self._end(seconds, file)

    def _end(self, seconds: float, file: TextIO) -> None:
        line = f"Timeout: nothing has happened for {seconds:.0f} s after step {self.step}"
        print(f"{line}!", file=file, flush=True)
        faulthandler.dump_traceback(file)
        self._ends(
            f"nothing has happened for {seconds:.0f} s after step {self.step} (train.watchdog): "
            "another process or the network does not answer, or this machine hangs; the stacks "
            f"stand in {self._path}; go on with --resume"
        )
        os._exit(1)
