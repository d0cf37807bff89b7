"""Recipes against each other on the real data: whole runs, several seeds, taking turns.

The ladder asks whether every stage is above the one before it; the control, whether attention over
branches is worth anything at equal parameters and multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from benchmarks.record import Outcome, put
from benchmarks.training import train
from fasttrain.config import Config, load
from fasttrain.data.outline import outline
from fasttrain.models.summary import summarize

_CONFIGS = Path(__file__).parent.parent / "configs"


@dataclass(frozen=True)
class Contestant:
    """A recipe and what is changed in it."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()

    @property
    def config(self) -> Path:
        """The recipe's file."""
        return _CONFIGS / self.recipe


# A small network that sees each picture a few times is held back by what a large one needs to
# see it two hundred times: dropout and strong augmentation. It bears a higher rate, as the rates
# of Adam go with one over the width (Yang et al., "Tensor Programs V", arXiv 2203.03466, table 3),
# and a CPU gains nothing from larger batches.
QUARTER = (
    "model.width_factor=0.25",
    "model.dropout=0",
    "model.head.dropout=0",
    "data.augment=[{name: crop, mode: reflect}, {name: flip, mode: alternating}]",
    "data.validation=0",
    "data.batch_size=64",
    "optim.lr=3e-3",
    "train.label_smoothing=0.2",
)

LADDER = (
    Contestant("baseline", "baseline.yaml"),
    Contestant("intermediate", "intermediate.yaml"),
    Contestant("advanced, quarter width", "advanced.yaml", QUARTER),
)

# One branch has a third of the kernels at one width: all widths are sqrt(3) times as large.
_HALF = "model.width_factor=0.5"
_WIDER = "[{width: 28}, {width: 56, blocks: 2}, {width: 111, blocks: 3, pool: none}]"
CONTROL = (
    Contestant(
        "one branch", "intermediate.yaml",
        ("model.branches=1", "model.gate=none", f"model.stages={_WIDER}"),
    ),
    Contestant("uniform weights", "intermediate.yaml", (_HALF, "model.gate=uniform")),
    Contestant("learned attention", "intermediate.yaml", (_HALF,)),
)  # fmt: skip


def measure(
    title: str, contestants: tuple[Contestant, ...], seeds: int, epochs: int, keep: Path
) -> Outcome:
    """Train every contestant for `epochs` with every seed; the seeds are the outer loop.

    The runs lie in `keep`; those that are there already are taken as they are, or finished.
    """
    settings = {one.name: load(one.config, _short(one, epochs)) for one in contestants}
    runs: dict[str, list[dict[str, Any]]] = {one.name: [] for one in contestants}
    for seed in range(seeds):
        for one in contestants:
            folder = keep / f"{one.name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
            overrides = [*_short(one, epochs), f"seed={seed}"]
            runs[one.name].append(train(one.config, overrides, folder))
    return Outcome(
        title=f"{title}, {epochs} epochs, {seeds} seeds",
        unit="test accuracy as a share",
        runs={name: [run["test_accuracy"] for run in done] for name, done in runs.items()},
        settings={name: config.model_dump(mode="json") for name, config in settings.items()},
        details=[
            {"name": name, **_size(settings[name]), "runs": done} for name, done in runs.items()
        ],
    )


def _short(one: Contestant, epochs: int) -> list[str]:
    return [*one.overrides, f"train.epochs={epochs}"]


def _size(config: Config) -> dict[str, int]:
    data = outline(config.data)
    summary = summarize(config.model, data.classes, data.size)
    return {"parameters": summary.parameters, "multiply_adds": summary.multiply_adds}


def show(outcome: Outcome) -> None:
    """Print a line for each contestant: mean, every seed, size, and its time."""
    table = Table(title=outcome.title, title_justify="left")
    table.add_column("")
    for heading in ("mean", "each seed", "parameters", "multiply-adds", "seconds a run"):
        table.add_column(heading, justify="right")
    for detail in outcome.details or []:
        found = outcome.runs[detail["name"]]
        table.add_row(
            detail["name"],
            f"{mean(found):.2%}",
            ", ".join(f"{value:.2%}" for value in found),
            f"{detail['parameters']:,}",
            f"{detail['multiply_adds']:,}",
            f"{mean(run['wall_seconds'] for run in detail['runs']):,.0f}",
        )
    put(table)


def steps(outcome: Outcome) -> list[str]:
    """For each contestant after the first, whether its gain is more than the spread of the seeds.

    The spread is the larger one of the two, from the lowest to the highest seed.
    """
    lines = []
    for (lower, below), (upper, above) in pairwise(outcome.runs.items()):
        gain = mean(above) - mean(below)
        spread = max(max(one) - min(one) for one in (below, above))
        verdict = "more than" if gain > spread else "NOT more than"
        lines.append(
            f"{upper} over {lower}: {100 * gain:+.2f} points, {verdict} the spread of the seeds, "
            f"{100 * spread:.2f} points"
        )
    return lines
