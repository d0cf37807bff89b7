"""The tables of figures that stand in `readme.PAGES`, each a function of the records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median

from benchmarks.library import Record, each, newest, whole
from benchmarks.record import short

LINK = "](records/"  # becomes the way from a page to the records
_NONE = "None yet: `python -m benchmarks gpu` measures it."


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]], sources: Iterable[Path]) -> str:
    """A table in Markdown, and the files it was made from."""
    headings, rows = list(headings), list(rows)
    if not rows:
        return _NONE
    lines = [headings, ["---"] * len(headings), *rows]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    files = ", ".join(f"[{path.stem}{LINK}{path.name})" for path in sources)
    return f"{drawn}\n\nFrom {files}."


def _loaders(records: Path) -> str:
    path, record = newest(records, "loaders(-light-512)?")
    rows = [
        [f"`{name}`", f"{found['median']:,.0f}", f"{record['ratios'][name]['median']:.1f}"]
        for name, found in _by_median(record)
    ]
    return _table(["loader", "images/s", f"over {record['baseline']}"], rows, [path])


def _other_loaders(records: Path, gpu: bool = False) -> str:
    """Every newest record of loaders, by what was done to how large batches."""
    rows, sources = [], []
    found = each(records, r"loaders-\w+-\d+", gpu)
    for name in sorted(found, key=lambda name: (name.split("-")[1], int(name.split("-")[2]))):
        path, record = found[name]
        sources.append(path)
        _, augmentation, batch = name.split("-")
        others = [each for each, _ in _by_median(record) if not each.startswith("fasttrain")]
        ours = [_over(record, f"fasttrain {loader}", others[0]) for loader in ("resident", "dali")]
        rows.append([augmentation, batch, _processor(record), *ours, others[0]])
    place = "GPU" if gpu else "CPU"
    headings = ["augmentation", "batch", place, "`resident`", "`dali`", "the fastest of the others"]
    return _table(headings, rows, sources)


def _over(record: Record, one: str, other: str) -> str:
    """Images/s of one loader, and how many times as fast it is, pair by pair."""
    figures, others = (record["results"][name]["all"] for name in (one, other))
    times = median(a / b for a, b in zip(figures, others, strict=True))
    return f"{median(figures):,.0f} ({times:.1f} times)"


def _by_median(record: Record) -> list[tuple[str, Record]]:
    return sorted(record["results"].items(), key=lambda item: -item[1]["median"])


def _recipes(records: Path, gpu: bool = False) -> str:
    found = each(records, "accuracy-.+", gpu).values()
    rows, sources = [_recipe(record) for _, record in found], [path for path, _ in found]
    headings = ["recipe", "epochs", "test accuracy", "whole process", "training", "parameters"]
    if gpu:
        headings += ["memory", "GPU"]
    return _table(headings, rows, sources)


def _recipe(record: Record) -> list[str]:
    settings, results = record["settings"], record["results"]
    factor = settings["model"].get("width_factor", 1)
    found = results["test_accuracy"]["all"]
    narrower = f", {factor:g} of its width" if factor != 1 else ""
    precision = ", fp32" if settings["train"]["precision"] == "fp32" else ""
    row = [
        f"`{settings['name']}`" + narrower + precision,
        str(settings["train"]["epochs"]),
        _accuracy(found),
        _time(median(results["wall_seconds"]["all"])),
        f"{median(results['images_per_second']['all']):,.0f} images/s",
        f"{record['details'][0]['parameters']:,}",
    ]
    if not record["environment"]["gpus"]:
        return row
    memory = max(run.get("peak_gpu_memory_bytes", 0) for run in record["details"])
    return [*row, f"{memory / 1e9:.1f} GB", _processor(record)]


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
    for path, record in whole(records, "accuracy-speed94"):
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
    """What did the work: the GPU, where there is one."""
    said: str = next(iter(record["environment"]["gpus"]), record["environment"]["processor"])
    return said.replace("(R)", "").removesuffix(" Processor")


def _spread(figures: list[float]) -> str:
    if len(figures) == 1:
        return f"{figures[0]:.3f} (one)"
    return f"{median(figures):.3f} ({min(figures):.3f} to {max(figures):.3f})"


def _turns(records: Path) -> str:
    """The newest recipe, its variants and its rivals in warm processes, one after the other."""
    found = each(records, "turns-.+", gpu=True).values()
    rows = [row for _, record in found for row in _contestants(record)]
    headings = ["GPU", "", "test accuracy", "seconds", "over each rival, seed by seed"]
    return _table(headings, rows, [path for path, _ in found])


def _contestants(record: Record) -> Iterator[list[str]]:
    """A row for the recipe, each variant of it and each rival; none for what was never ready."""
    settings, gpu = record["settings"], _processor(record)
    found = {name: summary["all"] for name, summary in record["results"].items()}
    variants, rivals = settings.get("variants") or {}, settings["rivals"]
    names = {"": f"`{settings['name']}`, {settings['train']['epochs']} epochs"}
    names |= {name: f"the same, {' '.join(changes)}" for name, changes in variants.items()}
    names |= {name: f"`{name}`" for name in rivals}
    for name, title in names.items():
        accuracy, seconds = (found.get(f"{name} {it}".strip()) for it in ("accuracy", "seconds"))
        if accuracy and seconds:
            ratios = {rival: found.get(f"{name or 'ours'} over {rival}") for rival in rivals}
            yield [
                gpu,
                title,
                f"{100 * mean(accuracy):.2f} % (mean of {len(accuracy)})",
                _spread(seconds),
                ", ".join(f"`{rival}` {_spread(each)}" for rival, each in ratios.items() if each),
            ]
            gpu = ""


def _costs(records: Path, gpu: bool = False) -> str:
    """Every record that compares a way of training with one that lacks something."""
    rows, sources = [], []
    for path, record in each(records, _COMPARED, gpu).values():
        sources.append(path)
        for place, (way, found) in enumerate(record["results"].items()):
            title = "" if place else record["title"]
            figure = f"{short(found['median'])} {record['unit']}"
            rows.append([title, way, figure, _ratio(record, way)])
    return _table(["", "", "median", "over the first"], rows, sources)


_COMPARED = "(train|overhead|startup|checkpoint|scaling|step|memory)(-.+)?"


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
    "turns": _turns,
    "gpu-recipes": partial(_recipes, gpu=True),
    "gpu-loaders": partial(_other_loaders, gpu=True),
    "gpu-costs": partial(_costs, gpu=True),
}
