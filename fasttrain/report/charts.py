"""Charts as SVG that lies in a page: its colours are the page's, its text is text.

Colours are those that Okabe and Ito chose to be told apart without full colour vision; lines differ
by dashes, too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

# What matplotlib writes, and what the page's style sheet calls it.
_COLOURS = {
    "#0072b2": "--blue",
    "#d55e00": "--vermilion",
    "#009e73": "--green",
    "#cc79a7": "--purple",
    "#e69f00": "--orange",
    "#56b4e9": "--sky",
}
_INK, _GRID = "#010203", "#040506"
PALETTE = tuple(_COLOURS)
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 3)), (0, (8, 3)))
_MOST = 400  # points of a line: more cannot be told apart, and make the file large
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fasttrain",  # equal figures, equal files
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": _INK,
    "text.parse_math": False,  # a run's name may have dollar signs
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: What the legend says.
        x: (N,) where.
        y: (N,) how much.
        colour: Its place in the palette.
        dash: Its place among the dashes; 0 is a whole line.
        point: Draw points instead of a line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    dash: int = 0
    point: bool = False


def lines(title: str, across: str, up: str, shown: Sequence[Line], *, percent: bool = False) -> str:
    """A chart of lines; those without points are left out."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(across, up)
        shown = [line for line in shown if len(line.x)]
        for line in shown:
            colour = PALETTE[line.colour % len(PALETTE)]
            if line.point:
                axes.plot(line.x, line.y, "D", color=colour, label=line.name, markersize=5)
            else:
                x, y = _thin(line.x), _thin(line.y)
                marker = "o" if len(x) < 3 else None
                dash = _DASHES[line.dash % len(_DASHES)]
                axes.plot(
                    x, y, linestyle=dash, color=colour, label=line.name, marker=marker, markersize=3
                )
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        if len(shown) > 1:
            axes.legend(loc="best", fontsize=8)
        return _svg(figure, title)


def budget(title: str, seconds: dict[str, float]) -> str:
    """One bar that shares out the time of a run."""
    total = sum(seconds.values()) or 1.0
    hatches = ("", "///", "...", "xxx", "\\\\\\", "ooo")
    with mpl.rc_context({**_STYLE, "axes.grid": False, "hatch.linewidth": 0.5}):
        figure = Figure(figsize=(12.0, 1.2), layout="constrained")
        axes = figure.add_subplot()
        left = 0.0
        for at, (name, spent) in enumerate(seconds.items()):
            share = spent / total
            label = f"{name}: {duration(spent)} ({share:.1%})"
            axes.barh(
                0, share, left=left, color=PALETTE[at % len(PALETTE)], label=label,
                hatch=hatches[at % len(hatches)], edgecolor=_INK, linewidth=0.3,
            )  # fmt: skip
            left += share
        axes.set_xlim(0, 1)
        axes.set_axis_off()
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=1.2)
        return _svg(figure, title)


def reliability(title: str, bins: NDArray[np.float64]) -> str:
    """How often answers of each confidence are right; (BINS, 3) as `Answers.reliability`."""
    counts, confidence, accuracy = bins.T
    edges = np.linspace(0, 1, len(bins) + 1)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("confidence", "accuracy")
        axes.bar(
            edges[:-1], accuracy, width=1 / len(bins), align="edge", color=PALETTE[0],
            edgecolor=_INK, linewidth=0.3, label="accuracy",
        )  # fmt: skip
        filled = counts > 0
        axes.plot(confidence[filled], accuracy[filled], "o", color=PALETTE[1], markersize=3,
                  label="at its mean confidence")  # fmt: skip
        axes.plot([0, 1], [0, 1], linestyle=_DASHES[1], color=_INK, linewidth=0.8,
                  label="well calibrated")  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.legend(loc="upper left", fontsize=8)
        return _svg(figure, title)


def _figure(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure, axes


def _thin(values: Sequence[float]) -> NDArray[np.float64]:
    """At most `_MOST` values: means of equal groups, the last of which may be smaller."""
    every = -(-len(values) // _MOST)
    starts = np.arange(0, len(values), every)
    sums = np.add.reduceat(np.asarray(values, dtype=float), starts)
    return sums / np.diff(np.append(starts, len(values)))


def duration(seconds: float) -> str:
    """Seconds in the unit that is read best."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _svg(figure: Figure, title: str) -> str:
    content = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(content, format="svg", metadata={"Date": None})
    svg = content.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Several charts share a page, where an id may stand once; only these are never referred to.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    for colour, name in _COLOURS.items():
        svg = svg.replace(colour, f"var({name})")
    svg = svg.replace(_INK, "var(--ink)").replace(_GRID, "var(--line)")
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    if size:  # as wide as the page gives room for
        svg = svg.replace(size[0], 'width="100%"', 1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
