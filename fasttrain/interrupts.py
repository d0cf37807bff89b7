"""Being asked to stop by a signal."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from types import FrameType

# Schedulers and launchers send SIGTERM, a keyboard SIGINT, Slurm SIGUSR1 ahead of a time limit.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# Ctrl-C reaches the launcher and the ranks; the launcher then tells the ranks again, and its own
# end tells them once more. All of that is one request.
_ONE_REQUEST = 3.0  # seconds


class StopRequest:
    """Remembers that this process was asked to stop; a second request ends it at once.

    It hears signals between `__enter__` and `__exit__`, when entered in the main thread, where
    Python allows that. A thread listens, since the main one may wait for another rank or for the
    device. What is on disk is whole at every moment, so an end at once does no harm.

    Attributes:
        signal: The name of the first signal, such as `SIGTERM`; `None` until there is one.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._heard = 0.0
        self._undo = ExitStack()

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._listen()
        return self

    def __exit__(self, *raised: object) -> None:
        self._undo.close()

    def _listen(self) -> None:
        """Have the interpreter write every signal's number to a socket, and a thread read it."""
        here, there = socket.socketpair()
        there.setblocking(False)
        thread = threading.Thread(target=self._read, args=(here,), name="signals", daemon=True)
        thread.start()
        self._undo.callback(here.close)
        self._undo.callback(thread.join)
        self._undo.callback(there.close)
        # Forked workers hold copies of it, so that closing it would end nothing.
        self._undo.callback(there.shutdown, socket.SHUT_RDWR)
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(there.fileno()))
        for number in SIGNALS:
            # A handler must be there, or the signal does what it does by default.
            self._undo.callback(signal.signal, number, signal.signal(number, _ignore))

    def _read(self, numbers: socket.socket) -> None:
        while heard := numbers.recv(1):
            if heard[0] in SIGNALS:
                self._hear(heard[0])

    def _hear(self, number: int) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._heard = signal.Signals(number).name, now
            _tell(self.signal)
        elif now - self._heard > _ONE_REQUEST:
            os._exit(128 + number)


def _tell(name: str) -> None:
    """Answer at once who sits at a terminal: before the step ends, code may be compiled."""
    with suppress(OSError, ValueError, AttributeError):  # the terminal, or the stream, may be gone
        if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
            sys.stderr.write(
                f"{name}: stopping behind this step; a second one, {_ONE_REQUEST:.0f} s later, "
                "ends at once\n"
            )


def _ignore(number: int, frame: FrameType | None) -> None:
    """The thread hears it."""
