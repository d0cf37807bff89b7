"""The report beside the run: drawn anew while it goes, by a process that cannot hold it up."""

from __future__ import annotations

import os
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from fasttrain.config import Track
from fasttrain.errors import UserError
from fasttrain.observe.following import Follower

_PATIENCE = 30.0  # seconds that the end of a run waits for the last drawing
_NEEDED = ("jinja2", "matplotlib")


class ReportSink(Follower):
    """The process that draws `report.html` in a run folder.

    Args:
        folder: The run folder.
        console: Where it is told, in one line, if the last drawing failed.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder, self._console = folder, console
        # It is no rank, and leaves the GPUs alone.
        apart = {"WORLD_SIZE": "1", "RANK": "0", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        super().__init__(
            "fasttrain.report.follow", [str(folder)], _PATIENCE, apart, stdout=subprocess.PIPE
        )

    def close(self) -> None:
        """Let the last drawing be finished, but not for ever; say why if it was not."""
        super().close()
        reason = self._reason()
        if reason:
            later = shlex.join(["fasttrain", "report", str(self._folder)])
            line = f"report: not drawn to the end ({reason}); to draw it later: {later}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _reason(self) -> str:
        code, said = self._process.returncode, self._process.stdout
        if code is None or said is None:  # it may hang where nothing can end it: do not read
            return f"it took longer than {self._patience:g} s"
        with said:
            last = said.read().decode(errors="replace").splitlines()[-1:]
        return f"its process ended with code {code}" if code else "".join(last)


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
            f"a report needs {' and '.join(_missing())}: run pip install {' '.join(_missing())}, "
            "or choose track.report=auto"
        )


def _missing() -> list[str]:
    return [name for name in _NEEDED if find_spec(name) is None]
