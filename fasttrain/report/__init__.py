"""The report of one run or of several: one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from fasttrain.files import write_bytes, write_output
from fasttrain.observe.reporting import check_installed


def write(runs: Sequence[Path], file: Path, live: bool = False) -> None:
    """Draw a report of run folders into an HTML file.

    Args:
        runs: One is shown with all its details, several side by side.
        file: Written atomically.
        live: Let an open page load itself anew while the run goes on.

    Raises:
        UserError: there is no such run, the file cannot be written, or a package is missing.
    """
    put = write_bytes if live else write_output
    put(file, _draw(runs, live).encode())


def inline(runs: Sequence[Path], height: int = 900) -> str:
    """Draw it as HTML that can stand within another page, such as a notebook.

    Args:
        runs: As in `write`.
        height: Of the frame, in pixels.

    Raises:
        UserError: as `write`.
    """
    page = html.escape(_draw(runs, live=False))
    return f'<iframe srcdoc="{page}" width="100%" height="{height}" style="border: 0"></iframe>'


def _draw(runs: Sequence[Path], live: bool) -> str:
    check_installed()
    from fasttrain.report.page import draw
    from fasttrain.report.reading import read
    from fasttrain.report.samples import samples

    found = [read(run) for run in runs]
    pictures = samples(found[0]) if len(found) == 1 else None
    return draw(found, pictures, live)
