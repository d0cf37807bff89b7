"""What a report tells, read from run folders; neither torch nor a device is needed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasttrain import answers
from fasttrain.answers import Answers
from fasttrain.config import Config, Data
from fasttrain.data import sources
from fasttrain.data.plan import holdout
from fasttrain.data.store import Split, Store
from fasttrain.files import read_json
from fasttrain.observe import journal
from fasttrain.observe.folder import RunFolder, open_run
from fasttrain.observe.journal import Record


@dataclass(frozen=True)
class Run:
    """One run as it stands.

    Attributes:
        folder: Where it lies.
        config: What runs.
        records: Its journal.
        result: The final figures; `None` while it goes on, or if it did not end well.
        outcome: How it stands.
        environment: What it runs on.
        store: Its data set; `None` where that is not at hand, or has changed since.
        facts: What the run keeps of it (`data.json`).
    """

    folder: RunFolder
    config: Config
    records: Sequence[Record]
    result: dict[str, Any] | None
    outcome: dict[str, Any]
    environment: dict[str, Any]
    store: Store | None
    facts: dict[str, Any] | None

    @property
    def training(self) -> list[Record]:
        """The journal's lines on training, in order."""
        return [record for record in self.records if record["kind"] == "train"]

    def evaluations(self, split: str) -> list[Record]:
        """The journal's lines on a split, in order."""
        return [record for record in self.records if record.get("split") == split]

    @property
    def steps_per_epoch(self) -> float:
        """Exact for a run that is complete; else what its journal allows to say."""
        if self.result:
            return float(self.result["steps"] / self.result["epochs"])
        return max((record["step"] / record["epoch"] for record in self.records), default=1.0)

    def epochs(self, records: Sequence[Record]) -> list[float]:
        """When they were written, in epochs."""
        return [record["step"] / self.steps_per_epoch for record in records]

    @property
    def is_running(self) -> bool:
        """Whether it says that it goes on."""
        return self.outcome.get("outcome") == "running"

    @property
    def answered(self) -> tuple[str, Answers] | None:
        """The split that was scored last, and the answers to it."""
        for split in ("test", "validation"):
            path = self.folder.answers(split)
            if path.exists() and self.evaluations(split):
                return split, answers.load(path)
        return None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; numbers where the run does not keep them."""
        if self.facts:
            return tuple(self.facts["classes"])
        scored = [record["per_class"] for record in self.records if "per_class" in record]
        return tuple(map(str, range(len(scored[-1])))) if scored else ()

    def pictures(self, split: str) -> Split | None:
        """The pictures of a split in the order of its answers, where they are at hand."""
        if self.store is None:
            return None
        if split == "test":
            return self.store.test
        _, held_out = holdout(len(self.store.train.labels), self.config.data.validation)
        return Split(self.store.train.images[held_out], self.store.train.labels[held_out])


def read(path: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: there is no run, or it cannot be read.
    """
    folder, config = open_run(path)
    facts = read_json(folder.data)
    return Run(
        folder,
        config,
        journal.read(folder.journal),
        read_json(folder.result),
        read_json(folder.outcome) or {},
        read_json(folder.environment) or {},
        _open_same(config.data, facts) if facts else None,
        facts,
    )


def _open_same(data: Data, facts: dict[str, Any]) -> Store | None:
    """The data set that a run was trained on, and not what lies in its place by now."""
    store = sources.open_prepared(data)
    return store if store and store.digest == facts.get("digest") else None
