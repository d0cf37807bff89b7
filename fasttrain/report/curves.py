"""How runs went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fasttrain.observe.journal import Record
from fasttrain.report import charts
from fasttrain.report.charts import Line
from fasttrain.report.reading import Run

_ORANGE, _SKY = 1, 5  # places in the palette


@dataclass(frozen=True)
class Chart:
    """A drawing and its heading."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class _Panel:
    """What a chart shows of the journal, and the unit."""

    title: str
    key: str
    unit: str
    percent: bool = False
    scored: bool = False  # evaluations, too


_PANELS = (
    _Panel("Accuracy", "accuracy", "accuracy", percent=True, scored=True),
    _Panel("Loss", "loss", "cross-entropy, nats", scored=True),
    _Panel("Learning rate", "lr", "learning rate"),
    _Panel("Norm of the gradient", "grad_norm", "L2 norm"),
    _Panel("Throughput", "images_per_second", "images/s"),
    _Panel("Waiting for data", "data_stall", "share of the training time", percent=True),
)


def curves(runs: Sequence[Run]) -> list[Chart]:
    """The charts of one run, or of several over each other."""
    drawn, names = [], _names(runs)
    for panel in _PANELS:
        if len(runs) == 1:
            shown = _of_one(runs[0], panel)
        else:
            each = enumerate(zip(runs, names, strict=True))
            shown = [line for at, (run, name) in each for line in _among(run, name, panel, at)]
        svg = charts.lines(panel.title, "epoch", panel.unit, shown, percent=panel.percent)
        drawn.append(Chart(panel.title, Markup(svg)))  # noqa: S704 - our own drawing
    return drawn


def _of_one(run: Run, panel: _Panel) -> list[Line]:
    if not panel.scored:
        return [_line("training", run, run.training, panel.key)]
    return [
        _line("training", run, run.training, panel.key, colour=_SKY),
        _line("validation", run, run.evaluations("validation"), panel.key, dash=1),
        _line("test", run, run.evaluations("test"), panel.key, colour=_ORANGE, point=True),
    ]


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or all of their paths where two are called alike."""
    paths = [run.folder.path for run in runs]
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else list(map(str, paths))


def _among(run: Run, name: str, panel: _Panel, at: int) -> list[Line]:
    if not panel.scored:
        return [_line(name, run, run.training, panel.key, at, at)]
    return [
        _line(name, run, run.evaluations("validation"), panel.key, at, at),
        _line(f"{name}, test", run, run.evaluations("test"), panel.key, at, point=True),
    ]


def _line(
    name: str,
    run: Run,
    records: Sequence[Record],
    key: str,
    colour: int = 0,
    dash: int = 0,
    point: bool = False,
) -> Line:
    known = [record for record in records if key in record]
    return Line(name, run.epochs(known), [record[key] for record in known], colour, dash, point)
