"""Being asked to stop: by a signal, or by the end of the launcher."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType

# Schedulers and launchers send SIGTERM, a keyboard SIGINT, Slurm SIGUSR1 ahead of a time limit.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# Ctrl-C reaches the launcher and the ranks; the launcher then tells the ranks again, and its own
# end tells them once more. All of that is one request.
_ONE_REQUEST = 3.0  # seconds
_PR_SET_PDEATHSIG = 1


class StopRequest:
    """Remembers that this process was asked to stop; a second request ends it at once.

    It hears signals between `__enter__` and `__exit__`, in the main thread only, where Python
    delivers them. What is on disk is whole at every moment, so an end at once does no harm.

    Attributes:
        signal: The name of the first signal, such as `SIGTERM`; `None` until there is one.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._heard = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what it returned before

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._heard = signal.Signals(number).name, now
        elif now - self._heard > _ONE_REQUEST:
            os._exit(128 + number)


def follow_launcher() -> None:
    """Have the system send SIGTERM when the launcher ends, so that no trainer outlives it.

    `accelerate launch` with one process does not pass signals on, and dies of SIGUSR1 in any
    case. A process that no launcher started, such as one under nohup, is left alone.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if launched and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
