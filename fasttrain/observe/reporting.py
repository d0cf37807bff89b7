"""The report beside the run: drawn anew while it goes, by a process that cannot hold it up."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from fasttrain.config import Track
from fasttrain.errors import UserError
from fasttrain.observe.following import Follower

_PATIENCE = 30.0  # seconds that the end of a run waits for the last drawing
_NEEDED = ("jinja2", "matplotlib")


class ReportSink(Follower):
    """The process that draws `report.html` in a run folder."""

    def __init__(self, folder: Path) -> None:
        # It is no rank, and leaves the GPUs alone.
        apart = {"WORLD_SIZE": "1", "RANK": "0", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        super().__init__("fasttrain.report.follow", [str(folder)], _PATIENCE, apart)


def is_wanted(track: Track) -> bool:
    """Whether a run draws its report.

    Raises:
        UserError: it is told to, and cannot.
    """
    if track.report is True:
        check_installed()
    if track.report == "auto":
        return not _missing() and os.environ.get("FASTTRAIN_REPORT") != "0"
    return track.report


def check_installed() -> None:
    """Refuse to draw without the packages that it takes.

    Raises:
        UserError: one is missing.
    """
    if _missing():
        raise UserError(
            f"a report needs {' and '.join(_missing())}; install what is missing with "
            "pip install 'fasttrain[report]', or choose track.report=auto"
        )


def _missing() -> list[str]:
    return [name for name in _NEEDED if find_spec(name) is None]
