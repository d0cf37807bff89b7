"""Draws a run's report anew while the run goes; a process of its own.

    python -m fasttrain.report.follow RUN_FOLDER

It ends after the trainer, whose end it notices by its standard input, with a last drawing;
where that fails it prints the reason.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from fasttrain.errors import UserError
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.following import has_ended, outlive_signals
from fasttrain.redact import redact
from fasttrain.report import write

_AT_LEAST = 15.0  # seconds between two drawings
_SHARE = 0.05  # of the time, at most, is spent on drawing: on a small machine it takes a core


def main() -> None:
    """Draw, as long as the run goes, and once more."""
    outlive_signals()
    os.nice(10)
    folder = RunFolder(Path(sys.argv[1]))
    length, drawn, pause = 0, 0, _AT_LEAST
    while not has_ended(pause):
        with suppress(OSError):  # it is not there yet, or the file system is in trouble
            length = folder.journal.stat().st_size
        if length != drawn:
            began = time.monotonic()
            if not _draw(folder):
                drawn = length
            pause = max(_AT_LEAST, (time.monotonic() - began) / _SHARE)
    print(_draw(folder))  # noqa: T201 - for the trainer, which tells it


def _draw(folder: RunFolder) -> str:
    """Draw once; return why that failed, in one line, or nothing."""
    try:
        write([folder.path], folder.report, live=True)
    except Exception as error:  # whatever it was, the next drawing may succeed
        what = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return redact(" ".join(f"{what}{error}".split()))
    return ""


if __name__ == "__main__":
    main()
