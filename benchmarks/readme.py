"""The tables of figures in `PAGES`, made from the newest records: none of them is typed by hand.

A table stands between two comments that name it; `python -m benchmarks readme` writes them anew
and a test fails where one says something else than the records do.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.record import FOLDER, short
from fasttrain.errors import UserError

_ROOT = Path(__file__).parent.parent
PAGES = (_ROOT / "README.md", _ROOT / "benchmarks" / "README.md")

Record = dict[str, Any]
_LINK = "](records/"  # becomes the way from a page to the records
_STAMP = len("20260131-235959")  # ends the name of every record


def render(text: str, records: Path = FOLDER, page: Path = PAGES[0]) -> str:
    """The text of a page with every table between its comments made from the newest records.

    Raises:
        UserError: the text asks for a table that does not exist, or has no records.
    """

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise UserError(
                f"{page.relative_to(_ROOT)} asks for table {name!r}; there are {', '.join(TABLES)}"
            )
        drawn = TABLES[name](records).replace(_LINK, f"]({os.path.relpath(FOLDER, page.parent)}/")
        return f"{match['open']}\n{drawn}\n{match['close']}"

    return _MARKED.sub(table, text)


_MARKED = re.compile(
    r"(?P<open><!-- records: (?P<name>[\w-]+) -->).*?(?P<close><!-- end of records -->)", re.DOTALL
)


def newest(records: Path, pattern: str, figure: str | None = None) -> tuple[Path, Record]:
    """The last record of that name that is no first look, and has that figure.

    Raises:
        UserError: there is none.
    """
    for path, record in _whole(records, pattern):
        if figure is None or figure in record["results"]:
            return path, record
    name = re.split(r"\W", pattern)[0]
    raise UserError(f"{records} holds no record of {name}; run python -m benchmarks")


def _whole(records: Path, pattern: str) -> Iterator[tuple[Path, Record]]:
    """The records of such names that are no first looks, newest first."""
    form = re.compile(rf"{pattern}-\d{{8}}-\d{{6}}\.json")
    by_time = sorted(records.glob("*.json"), key=lambda path: path.stem[-_STAMP:], reverse=True)
    for path in by_time:
        if form.fullmatch(path.name):
            record: Record = json.loads(path.read_text())
            if not record["quick"]:
                yield path, record


def _each(records: Path, pattern: str) -> dict[str, tuple[Path, Record]]:
    """The newest of them for every name there is, by name."""
    found: dict[str, tuple[Path, Record]] = {}
    for path, record in _whole(records, pattern):
        found.setdefault(path.stem[: -_STAMP - 1], (path, record))
    return dict(sorted(found.items()))


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]], sources: Iterable[Path]) -> str:
    """A table in Markdown, and the files it was made from."""
    headings = list(headings)
    lines = [headings, ["---"] * len(headings), *rows]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    files = ", ".join(f"[{path.stem}{_LINK}{path.name})" for path in sources)
    return f"{drawn}\n\nFrom {files}."


def _loaders(records: Path) -> str:
    path, record = newest(records, "loaders(-light-512)?")
    rows = [
        [f"`{name}`", f"{found['median']:,.0f}", f"{record['ratios'][name]['median']:.1f}"]
        for name, found in _by_median(record)
    ]
    return _table(["loader", "images/s", f"over {record['baseline']}"], rows, [path])


def _other_loaders(records: Path) -> str:
    """Every newest record of loaders, by what was done to how large batches."""
    rows, sources = [], []
    found = _each(records, r"loaders-\w+-\d+")
    for name in sorted(found, key=lambda name: (name.split("-")[1], int(name.split("-")[2]))):
        path, record = found[name]
        sources.append(path)
        _, augmentation, batch = name.split("-")
        others = [each for each, _ in _by_median(record) if not each.startswith("fasttrain")]
        ours = [_over(record, f"fasttrain {loader}", others[0]) for loader in ("resident", "dali")]
        rows.append([augmentation, batch, _processor(record), *ours, others[0]])
    headings = ["augmentation", "batch", "CPU", "`resident`", "`dali`", "the fastest of the others"]
    return _table(headings, rows, sources)


def _over(record: Record, one: str, other: str) -> str:
    """Images/s of one loader, and how many times as fast it is, pair by pair."""
    figures, others = (record["results"][name]["all"] for name in (one, other))
    times = median(a / b for a, b in zip(figures, others, strict=True))
    return f"{median(figures):,.0f} ({times:.1f} times)"


def _by_median(record: Record) -> list[tuple[str, Record]]:
    return sorted(record["results"].items(), key=lambda item: -item[1]["median"])


def _recipes(records: Path) -> str:
    found = _each(records, "accuracy-.+").values()
    rows, sources = [_recipe(record) for _, record in found], [path for path, _ in found]
    headings = ["recipe", "epochs", "test accuracy", "whole process", "training", "parameters"]
    return _table(headings, rows, sources)


def _recipe(record: Record) -> list[str]:
    settings, results = record["settings"], record["results"]
    factor = settings["model"].get("width_factor", 1)
    found = results["test_accuracy"]["all"]
    narrower = f", {factor:g} of its width" if factor != 1 else ""
    precision = ", fp32" if settings["train"]["precision"] == "fp32" else ""
    return [
        f"`{settings['name']}`" + narrower + precision,
        str(settings["train"]["epochs"]),
        _accuracy(found),
        _time(median(results["wall_seconds"]["all"])),
        f"{median(results['images_per_second']['all']):,.0f} images/s",
        f"{record['details'][0]['parameters']:,}",
    ]


def _accuracy(found: list[float]) -> str:
    if len(found) == 1:
        return f"{100 * found[0]:.2f} % (one run)"
    return f"{100 * mean(found):.2f} % ({', '.join(f'{100 * each:.2f}' for each in found)})"


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 60:,.0f} min"


def _contest(name: str) -> Callable[[Path], str]:
    def table(records: Path) -> str:
        path, record = newest(records, name)
        rows = [
            [
                detail["name"],
                _accuracy(record["results"][detail["name"]]["all"]),
                f"{detail['parameters']:,}",
                f"{detail['multiply_adds'] / 1e6:,.1f} million",
            ]
            for detail in record["details"]
        ]
        headings = ["", "test accuracy (each seed)", "parameters", "multiply-adds"]
        return _table(headings, rows, [path])

    return table


def _rival(records: Path) -> str:
    """The newest runs that someone else's training took turns with, on each kind of CPU."""
    newest_of: dict[str, tuple[Path, Record]] = {}
    for path, record in _whole(records, "accuracy-speed94"):
        if "rival_accuracy" in record["results"]:
            newest_of.setdefault(_processor(record), (path, record))
    rows = [row for cpu, (_, record) in newest_of.items() for row in _pairs(cpu, record)]
    headings = ["CPU", "", "test accuracy", "the speedrun's clock", "whole process"]
    return _table(headings, rows, [path for path, _ in newest_of.values()])


def _pairs(cpu: str, record: Record) -> list[list[str]]:
    """Ours, theirs, and the ratio."""
    found = {name: summary["all"] for name, summary in record["results"].items()}
    ours = [found["test_accuracy"], found["clock_seconds"], found["wall_seconds"]]
    theirs = [found[f"rival_{name}"] for name in ("accuracy", "seconds", "wall_seconds")]
    name = f"`speed94`, {record['settings']['train']['epochs']} epochs"
    rows = [
        ["", who, _accuracy(accuracy), *(f"{median(each):,.0f} s" for each in times)]
        for who, (accuracy, *times) in ((name, ours), ("the rival", theirs))
    ]
    rows[0][0] = cpu
    ratios = (found["clock_over_clock"], found["wall_over_wall"])
    return [*rows, ["", "ours over theirs, pair by pair", "", *map(_spread, ratios)]]


def _processor(record: Record) -> str:
    said: str = record["environment"]["processor"]
    return said.replace("(R)", "").removesuffix(" Processor")


def _spread(figures: list[float]) -> str:
    if len(figures) == 1:
        return f"{figures[0]:.3f} (one)"
    return f"{median(figures):.3f} ({min(figures):.3f} to {max(figures):.3f})"


def _costs(records: Path) -> str:
    """Every record that compares a way of training with one that lacks something."""
    rows, sources = [], []
    for path, record in _each(records, f"({'|'.join(_COMPARED)})(-.+)?").values():
        sources.append(path)
        for place, (way, found) in enumerate(record["results"].items()):
            title = "" if place else record["title"]
            figure = f"{short(found['median'])} {record['unit']}"
            rows.append([title, way, figure, _ratio(record, way)])
    return _table(["", "", "median", "over the first"], rows, sources)


_COMPARED = ("train", "overhead", "startup", "checkpoint", "scaling", "step", "memory")


def _ratio(record: Record, way: str) -> str:
    found = record["ratios"].get(way)
    if found is None or way == record["baseline"]:
        return ""
    return _spread(found["all"])


TABLES: dict[str, Callable[[Path], str]] = {
    "loaders": _loaders,
    "other-loaders": _other_loaders,
    "recipes": _recipes,
    "ladder": _contest("ladder"),
    "control": _contest("control"),
    "rival": _rival,
    "costs": _costs,
}
