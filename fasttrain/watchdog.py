"""Noticing that nothing happens any more."""

from __future__ import annotations

import faulthandler
import time
from pathlib import Path

_BETWEEN_CALLS = 1.0  # seconds: setting the alarm starts a thread


class Watchdog:
    """Ends a process that hangs, so that its launcher can start it again.

    When `alive` has not been called for `seconds`, the stack of every thread is written to `file`
    and the process ends with exit code 1. That is done by a thread of the interpreter's own
    (`faulthandler`), which needs neither Python code nor its lock to be free.

    Args:
        seconds: How long nothing may happen; `None` for ever.
        file: Where the stacks go; it is taken away again when nothing was written.
    """

    def __init__(self, seconds: float | None, file: Path) -> None:
        self._seconds, self._path = seconds, file
        self._set = 0.0

    def __enter__(self) -> Watchdog:
        if self._seconds is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size:  # of a process before this one
                self._path.rename(self._path.with_suffix(f".{time.time_ns()}.txt"))
            self._file = self._path.open("w")
            self.alive()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._seconds is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            self._path.unlink(missing_ok=True)

    def alive(self) -> None:
        """Start to wait anew; cheap enough for every step."""
        now = time.monotonic()
        if self._seconds is None or now - self._set < min(_BETWEEN_CALLS, self._seconds / 4):
            return
        self._set = now
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._file)
