"""How good a run's model is on the splits of its data, and what was found last."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal

from torch import nn

from fasttrain.answers import Answers
from fasttrain.config import Config
from fasttrain.data.store import Store
from fasttrain.observe.journal import Record
from fasttrain.runtime import Runtime
from fasttrain.training import parts, result
from fasttrain.training.divergence import BadStepError
from fasttrain.training.evaluate import Evaluation, Evaluator

Where = Literal["validation", "test"]


class Scoring:
    """Scores a model on its validation and test split; what a pass needs is made at the first.

    Args:
        config: The run.
        store: The data set.
        runtime: Where it runs.
        model: What is scored.

    Attributes:
        latest: By split, what the journal's last line says of it.
    """

    def __init__(self, config: Config, store: Store, runtime: Runtime, model: nn.Module) -> None:
        self._config, self._store, self._runtime = config, store, runtime
        self._evaluator = Evaluator(model, runtime, config.train.tta)
        self._splits = {"validation": parts.validation_split(config, store), "test": store.test}
        self._passes: dict[Where, Evaluation] = {}
        self.latest: dict[str, Record] = {}

    def has(self, split: Where) -> bool:
        """Whether there are pictures; there may be no validation split."""
        return len(self._splits[split].labels) > 0

    def warm_up(self, split: Where) -> bool:
        """Let the code for a split be generated; say if it was new."""
        if split not in self._passes:
            self._passes[split] = parts.evaluation_pass(
                self._config, self._store, self._splits[split], self._runtime
            )
        return self._evaluator.warm_up(self._passes[split], self._store.size)

    def __call__(
        self, split: Where, step: int, epoch: int, between: Callable[[], None]
    ) -> tuple[Record, Answers]:
        """Make a pass over a split that was warmed up; return a line of the journal, and its base.

        Args:
            split: Which one.
            step: Steps done so far.
            epoch: The epoch of the last of them.
            between: Called after every batch; it may raise, which abandons the pass.

        Raises:
            BadStepError: the loss is not a finite number.
        """
        answers = self._evaluator(self._passes[split], between)
        if not math.isfinite(answers.mean_loss):
            raise BadStepError(step - 1, "the loss of the evaluation after step")
        place = {"step": step, "epoch": epoch, "split": split}
        found = result.score(answers, len(self._store.classes))
        self.latest[split] = {"kind": "evaluation", **place, **found}
        return self.latest[split], answers

    def validated(self, step: int) -> float | None:
        """The validation accuracy after so many steps; `None` where it is not known."""
        found = self.latest.get("validation", {})
        return found["accuracy"] if found.get("step") == step else None

    def close(self) -> None:
        """End the passes' loaders."""
        with ExitStack() as last:
            for each in self._passes.values():
                last.callback(each.loader.close)
