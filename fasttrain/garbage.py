"""Python's garbage collector, kept from the start of a run.

While modules are imported and graphs traced, a million objects come to stay; looking through all
of them again and again, in vain, takes a sixth of the time to the first step.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_postponed = False


@contextmanager
def postponed() -> Iterator[None]:
    """Collect nothing until `go_on` is called, or this ends; for a process that only trains.

    A process that is forked meanwhile, such as a loader's helper, collects nothing at all.
    """
    global _postponed
    _postponed = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        go_on()
        gc.unfreeze()  # or what modules take down at the process's end looks like leaks to them


def go_on() -> None:
    """Collect again, among what is made from now on; nothing is done if nothing was postponed."""
    global _postponed
    if _postponed:
        gc.freeze()
        gc.enable()
    _postponed = False
