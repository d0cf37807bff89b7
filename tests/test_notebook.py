"""The notebook of the stages: runs from top to bottom, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "benchmarks" / "stages.ipynb"


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs() -> None:
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.long
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = read()
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    frames = [each for each in shown if "<iframe" in each.get("data", {}).get("text/html", "")]
    assert len(frames) == 4  # one for each stage, drawn anew in its place, and the comparison
    told = "".join(each.text for each in shown if each.get("name") == "stdout")
    assert [line.split()[0] for line in told.splitlines()] == [
        "baseline", "intermediate", "advanced"
    ]  # fmt: skip
