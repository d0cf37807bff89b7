"""How long a GPU had no batch to work on, told by the GPU itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Event(Protocol):
    """A mark in the device's queue of work; `torch.cuda.Event` is one."""

    def record(self) -> None:
        """Stand behind all that was asked of the device so far."""

    def query(self) -> bool:
        """Whether the device has come by."""

    def elapsed_time(self, other: Any, /) -> float:
        """Milliseconds of the device from here to `other`."""


def timed_event() -> Event:
    """A mark that says when the device came by."""
    event: Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event


class Gaps:
    """Device time from the end of a step until the next batch lies ready.

    The host runs ahead of the device, so what the host waits says little: a gap opens where the
    queue holds a step's last kernel, and closes behind what brings the next batch. Marks are read
    when the device has passed them; nothing waits for it.

    Args:
        event: Makes a mark.
    """

    def __init__(self, event: Callable[[], Event] = timed_event) -> None:
        self._event = event
        self._begun: Event | None = None
        self._closed: deque[tuple[Event, Event]] = deque()

    def open(self) -> None:
        """A step has been asked for; one more call moves the mark."""
        self._begun = self._mark()

    def close(self) -> None:
        """The next batch has been asked for."""
        if self._begun is not None:
            self._closed.append((self._begun, self._mark()))
        self._begun = None

    def drop(self) -> None:
        """Something else than training follows: no gap."""
        self._begun = None

    def take(self) -> float:
        """Seconds of all gaps that the device has passed since the last call."""
        milliseconds = 0.0
        while self._closed and self._closed[0][1].query():
            begun, ended = self._closed.popleft()
            milliseconds += begun.elapsed_time(ended)
        return milliseconds / 1000

    def _mark(self) -> Event:
        event = self._event()
        event.record()
        return event
