"""A record as a picture: every repetition is a dot, the median a line."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from textwrap import fill

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.record import Outcome

_INK, _DOT, _LINE = "#333333", "#0072b2", "#d55e00"  # told apart without colour vision, too


def draw(outcome: Outcome, path: Path) -> None:
    """Draw the repetitions of every competitor, one row each, into an SVG file."""
    mpl.rcParams["svg.hashsalt"] = "fasttrain"  # the same figures give the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: to be searched, read aloud, drawn well
    names = list(outcome.runs)[::-1]
    title = fill(outcome.title, 80)
    height = 1.1 + 0.42 * len(names) + 0.16 * title.count("\n")
    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(names):
        figures = outcome.runs[name]
        axes.plot(figures, [row] * len(figures), "o", color=_DOT, alpha=0.6, markersize=5)
        axes.vlines(median(figures), row - 0.3, row + 0.3, color=_LINE, linewidth=2)
    axes.set_yticks(range(len(names)), names, color=_INK)
    axes.set_ylim(-0.6, len(names) - 0.4)
    if min(min(figures) for figures in outcome.runs.values()) >= 0:
        axes.set_xlim(left=0)
    axes.set_xlabel(outcome.unit, color=_INK)
    axes.set_title(title, loc="left", fontsize=10, color=_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
