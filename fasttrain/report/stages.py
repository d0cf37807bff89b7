"""Recipes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from fasttrain.config import Config
from fasttrain.report.reading import Run


@dataclass(frozen=True)
class Stage:
    """One recipe, over all its seeds.

    Attributes:
        name: Its name.
        runs: The folders of its runs.
        config: What they are set to, but for the seed.
        each: The test accuracy of every run that is complete, 0 to 1.
        before: The mean of the stage before this one.
        parameters: How many its network has.
        images_per_second: Mean throughput.
        seconds: Mean seconds of training.
    """

    name: str
    runs: tuple[str, ...]
    config: Config
    each: tuple[float, ...]
    before: float | None
    parameters: int | None
    images_per_second: float | None
    seconds: float | None

    @property
    def accuracy(self) -> float | None:
        """The mean over the seeds."""
        return mean(self.each) if self.each else None

    @property
    def difference(self) -> float | None:
        """How much it gains over the stage before."""
        if self.accuracy is None or self.before is None:
            return None
        return self.accuracy - self.before

    @property
    def spread(self) -> float | None:
        """From the lowest to the highest seed; one alone says nothing of it."""
        return max(self.each) - min(self.each) if len(self.each) > 1 else None


def stages(runs: Sequence[Run]) -> list[Stage]:
    """Runs that differ in nothing but the seed make a stage; in the order of their first ones."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.config.model_copy(update={"seed": 0}).to_yaml(), []).append(run)
    found: list[Stage] = []
    for alike in groups.values():
        found.append(_stage(alike, found[-1].accuracy if found else None))
    return found


def _stage(alike: Sequence[Run], before: float | None) -> Stage:
    results = [run.result for run in alike if run.result]
    first = results[0] if results else {}

    def middle(name: str) -> float | None:
        return mean(result[name] for result in results) if results else None

    return Stage(
        alike[0].config.name,
        tuple(str(run.folder.path) for run in alike),
        alike[0].config,
        tuple(result["test_accuracy"] for result in results),
        before,
        first.get("parameters"),
        middle("images_per_second"),
        middle("train_seconds"),
    )
