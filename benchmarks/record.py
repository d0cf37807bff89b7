"""What a benchmark found: the table people read and the JSON record that backs it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from fasttrain.files import write_text
from fasttrain.observe import environment

FOLDER = Path(__file__).parent / "records"
_WIDTH = 160  # characters


@dataclass(frozen=True)
class Outcome:
    """Repetitions of one or several competitors that took turns.

    Attributes:
        title: What was measured.
        unit: Of every figure.
        runs: For each competitor every repetition, in the order they were made.
        settings: What the measurement was made with.
        baseline: The competitor that the others are compared with, repetition by repetition.
        details: What else is worth keeping of each repetition.
        units: The unit of each figure, where they are not the same for all.
    """

    title: str
    unit: str
    runs: dict[str, list[float]]
    settings: dict[str, Any]
    baseline: str | None = None
    details: list[dict[str, Any]] | None = None
    units: dict[str, str] | None = None

    def by_unit(self) -> dict[str, dict[str, list[float]]]:
        """The repetitions, by what they count: only those of one unit can share a scale."""
        groups: dict[str, dict[str, list[float]]] = {}
        for name, figures in self.runs.items():
            unit = self.units[name] if self.units else self.unit
            groups.setdefault(unit, {})[name] = figures
        return groups

    def ratios(self) -> dict[str, list[float]]:
        """Every competitor over the baseline, repetition by repetition."""
        if self.baseline is None:
            return {}
        return {
            name: [a / b for a, b in zip(figures, self.runs[self.baseline], strict=True)]
            for name, figures in self.runs.items()
        }


def summarize(figures: list[float]) -> dict[str, Any]:
    """Median, minimum, maximum and all figures."""
    return {
        "median": median(figures),
        "minimum": min(figures),
        "maximum": max(figures),
        "all": figures,
    }


def short(value: float) -> str:
    """A figure as people read it: whole from a thousand on, else four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show(outcome: Outcome) -> None:
    """Print a table: median, spread, and the median ratio to the baseline."""
    table = Table(title=f"{outcome.title} ({outcome.unit})", title_justify="left")
    ratios = outcome.ratios()
    for column in ("", "median", "minimum", "maximum"):
        table.add_column(column, justify="right" if column else "left")
    if ratios:
        table.add_column(f"over {outcome.baseline}", justify="right")
    for name, figures in outcome.runs.items():
        row = [short(value) for value in (median(figures), min(figures), max(figures))]
        table.add_row(name, *row, *([f"{median(ratios[name]):.2f}"] if ratios else []))
    put(table)


def put(table: Table) -> None:
    """Print a table; in a file or a pipe, which has no width, no column is cut."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table, highlight=False)


def save(outcome: Outcome, name: str, quick: bool, commit: str | None, folder: Path) -> Path:
    """Write the record with everything that is needed to repeat it; return its path.

    `commit` is the one that the measurement began with.
    """
    content = {
        "benchmark": name,
        "title": outcome.title,
        "unit": outcome.unit,
        "units": outcome.units,
        "quick": quick,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "environment": {**environment.describe(), "commit": commit},
        "settings": outcome.settings,
        "baseline": outcome.baseline,
        "results": {key: summarize(figures) for key, figures in outcome.runs.items()},
        "ratios": {key: summarize(figures) for key, figures in outcome.ratios().items()},
        "details": outcome.details,
    }
    path = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path
