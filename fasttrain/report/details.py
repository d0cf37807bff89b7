"""What only the page of one run tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fasttrain.answers import Answers, interval
from fasttrain.observe.journal import speed
from fasttrain.report import charts, pictures
from fasttrain.report.reading import Run

_MOST_CLASSES = 25  # of a confusion matrix that can be read
_Table = list[tuple[str, list[tuple[int, float]]]]


@dataclass(frozen=True)
class Tile:
    """A figure that one looks for first."""

    name: str
    value: str
    remark: str


def tiles(run: Run) -> list[Tile]:
    """How good it is, and how fast it went."""
    return [*_scores(run), *_speed(run)]


def _scores(run: Run) -> list[Tile]:
    found = []
    for split in ("test", "validation"):
        for last in run.evaluations(split)[-1:]:
            low, high = interval(last["accuracy"], last["count"])
            sure = f"95 %: {low:.2%} to {high:.2%}, of {last['count']:,}"
            found.append(Tile(f"{split} accuracy", f"{last['accuracy']:.2%}", sure))
            if "top5" in last:
                found.append(Tile(f"{split} top-5", f"{last['top5']:.2%}", "among the first five"))
    return found


def _speed(run: Run) -> list[Tile]:
    training, result = run.training, run.result
    if not training:
        return []
    done = training[-1]
    if result:
        rate, stall = result["images_per_second"], result["data_stall"]
    else:
        rate, stall = speed(training[1:] or training)  # the first holds a cold start
    seconds = result["train_seconds"] if result else done["seconds"]
    epoch = done["step"] / run.steps_per_epoch
    return [
        Tile("epoch", f"{epoch:.4g}", f"of {run.config.train.epochs}"),
        Tile("images/s", f"{rate:,.0f}", "over the training time"),
        Tile("waiting for data", f"{stall:.1%}", "of the training time"),
        Tile("training", charts.duration(seconds), f"{done['step']:,} steps"),
    ]


def budget(run: Run) -> Markup | None:
    """Where the time went; known when the run is complete."""
    if run.result is None:
        return None
    train = run.result["train_seconds"]
    waiting = train * run.result["data_stall"]
    seconds = {
        "training": train - waiting,
        "waiting for data": waiting,
        "compiling": run.result["compile_seconds"],
        "evaluating": run.result["evaluate_seconds"],
        "checkpoints": run.result["checkpoint_seconds"],
    }
    return Markup(charts.budget("Where the time went", seconds))  # noqa: S704 - our own drawing


def answers(run: Run) -> dict[str, Any] | None:
    """The classes, what was taken for what, how sure it was, and its mistakes."""
    answered = run.answered
    if answered is None:
        return None
    split, found = answered
    classes, at_hand = run.classes, run.pictures(split)
    table, shares = _table(found, classes), found.per_class(len(classes))
    return {
        "split": split,
        "per_class": [
            (name, sum(count for count, _ in row), share)
            for (name, row), share in zip(table, shares, strict=True)
        ],
        "confusion": table if len(classes) <= _MOST_CLASSES else None,
        "pairs": _pairs(table),
        "reliability": Markup(  # noqa: S704 - our own drawing
            charts.reliability("Reliability", found.reliability())
        ),
        "calibration_error": found.calibration_error(),
        "mistakes": pictures.mistakes(found, at_hand, classes) if at_hand else None,
    }


def _table(found: Answers, classes: tuple[str, ...]) -> _Table:
    """For each class how often it was taken for which, as a number and as a share."""
    matrix = found.confusion(len(classes))
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    return [
        (name, list(zip(counts.tolist(), parts.tolist(), strict=True)))
        for name, counts, parts in zip(classes, matrix, shares, strict=True)
    ]


def _pairs(table: _Table) -> list[tuple[str, str, int, float]]:
    """The classes that were most often taken for one another: right, answer, number, share."""
    pairs = [
        (name, table[answer][0], count, share)
        for at, (name, row) in enumerate(table)
        for answer, (count, share) in enumerate(row)
        if answer != at and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:_MOST_CLASSES]
