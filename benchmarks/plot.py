"""A record as a picture: every repetition is a dot, the median a line."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from textwrap import fill

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.record import Outcome

_INK, _DOT, _LINE = "#333333", "#0072b2", "#d55e00"  # told apart without colour vision, too


def draw(outcome: Outcome, path: Path) -> None:
    """Draw the repetitions of every competitor, a row each, a scale a unit, into an SVG file."""
    mpl.rcParams["svg.hashsalt"] = "fasttrain"  # the same figures give the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: to be searched, read aloud, drawn well
    groups = outcome.by_unit()
    rows = [len(runs) for runs in groups.values()]
    title = fill(outcome.title, 80)
    height = 0.4 + 0.7 * len(rows) + 0.42 * sum(rows) + 0.16 * title.count("\n")
    figure = Figure(figsize=(7.5, height), layout="constrained")
    every = figure.subplots(len(groups), squeeze=False, height_ratios=rows)[:, 0]
    for axes, (unit, runs) in zip(every, groups.items(), strict=True):
        _draw_unit(axes, unit, runs)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=_INK)  # as wide as all of it
    figure.savefig(path, metadata={"Date": None})


def _draw_unit(axes: Axes, unit: str, runs: dict[str, list[float]]) -> None:
    names = list(runs)[::-1]
    for row, name in enumerate(names):
        axes.plot(runs[name], [row] * len(runs[name]), "o", color=_DOT, alpha=0.6, markersize=5)
        axes.vlines(median(runs[name]), row - 0.3, row + 0.3, color=_LINE, linewidth=2)
    axes.set_yticks(range(len(names)), names, color=_INK)
    axes.set_ylim(-0.6, len(names) - 0.4)
    if min(map(min, runs.values())) >= 0:
        axes.set_xlim(0, 1.05 * max(map(max, runs.values())))
    axes.set_xlabel(unit, color=_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
