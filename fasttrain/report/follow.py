"""Draws a run's report anew while the run goes; a process of its own.

    python -m fasttrain.report.follow RUN_FOLDER

It ends after the trainer, whose end it notices by its standard input, with a last drawing.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from fasttrain.observe.folder import RunFolder
from fasttrain.observe.following import has_ended, outlive_signals
from fasttrain.report import write

_AT_LEAST = 15.0  # seconds between two drawings
_SHARE = 0.05  # of the time, at most, is spent on drawing: on a small machine it takes a core


def main() -> None:
    """Draw, as long as the run goes, and once more."""
    outlive_signals()
    os.nice(10)
    folder = RunFolder(Path(sys.argv[1]))
    drawn, pause = 0, _AT_LEAST
    while not has_ended(pause):
        length = folder.journal.stat().st_size
        if length != drawn:
            drawn, began = length, time.monotonic()
            write([folder.path], folder.report, live=True)
            pause = max(_AT_LEAST, (time.monotonic() - began) / _SHARE)
    write([folder.path], folder.report, live=True)


if __name__ == "__main__":
    main()
