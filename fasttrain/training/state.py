"""All that a run consists of at one step: out of its parts, and back into them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fasttrain.errors import UserError
from fasttrain.runtime import Runtime
from fasttrain.training import checkpoint
from fasttrain.training.average import Average
from fasttrain.training.checkpoint import Snapshot
from fasttrain.training.clock import Clock
from fasttrain.training.optim import Optimizers
from fasttrain.training.step import TrainingStep

_PARTS = ("step", "plan", "data", "optimizer", "clock", "totals", "rollbacks", "journal")


@dataclass
class State:
    """The parts of a run that change while it trains.

    The data needs no part but the step, and nor do random numbers: they are functions of it.

    Attributes:
        plan: Fingerprint of the batches.
        data: Digest of the pictures.
        rollbacks: How often the run went back to a checkpoint after it had diverged.
        journal: How many records the journal holds, at the last snapshot or restoring.
    """

    model: nn.Module
    average: Average | None
    optimizer: Optimizers
    step: TrainingStep
    clock: Clock
    runtime: Runtime
    plan: str
    data: str
    rollbacks: int = 0
    journal: int = 0

    def snapshot(self, done: int, score: float | None) -> Snapshot | None:
        """Copy everything to the host after `done` steps; every rank calls it, the main gets it.

        It waits for the device. The copy of what has diverged would be of no use: there is none.
        """
        totals = self.runtime.gather(self.step.counters.totals)
        if not self.runtime.is_main or not self._is_finite():
            return None
        return Snapshot(
            step=done,
            weights=checkpoint.weights_of(self.model),
            averaged=checkpoint.weights_of(self.average.model) if self.average else None,
            state={
                "step": done,
                "plan": self.plan,
                "data": self.data,
                "optimizer": checkpoint.copy(self.optimizer.state_dict()),
                "clock": self.clock.state(),
                "totals": checkpoint.copy(totals),
                "skipped": self.step.counters.skipped_in_a_row,
                "rollbacks": self.rollbacks,
                "journal": self.journal,
            },
            score=score,
        )

    def _is_finite(self) -> bool:
        return all(bool(weights.isfinite().all()) for weights in self.model.parameters())

    def restore(self, folder: Path) -> int:
        """Put everything back as it was; return the steps that were done.

        Raises:
            UserError: the checkpoint lacks something, or belongs to other batches.
        """
        state = checkpoint.load_state(folder, _PARTS)
        if (state["plan"], state["data"]) != (self.plan, self.data):
            raise UserError(
                f"{folder} was trained on other batches (the data has changed, or fasttrain's "
                "version); resume with the run's own config.yaml and data"
            )
        checkpoint.load_weights(folder, self.model)
        if self.average:
            checkpoint.load_weights(folder, self.average.model, averaged=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.clock.restore(state["clock"])
        self.rollbacks, self.journal = state["rollbacks"], state["journal"]
        self._take_totals(state["totals"])
        self.step.counters.skipped_in_a_row = state.get("skipped", 0)  # older ones lack it
        return int(state["step"])

    def _take_totals(self, totals: list[torch.Tensor]) -> None:
        """What each rank had counted; on another number of ranks the main one takes it all."""
        if len(totals) != self.runtime.world:
            whole = torch.stack(totals).sum(dim=0)
            totals = [whole] + [torch.zeros_like(whole)] * (self.runtime.world - 1)
        self.step.counters.restore(totals[self.runtime.rank])

    def describe(self) -> dict[str, Any]:
        """What the run's result says about it."""
        return {"plan": self.plan, "data": self.data, "rollbacks": self.rollbacks}
