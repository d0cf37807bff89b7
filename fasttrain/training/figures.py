"""The figures of training: from the device, without waiting for it, into the journal."""

from __future__ import annotations

import torch

from fasttrain.data.plan import Plan
from fasttrain.observe.journal import Journal
from fasttrain.runtime import Runtime
from fasttrain.training.clock import Clock, Readout
from fasttrain.training.counters import NEVER
from fasttrain.training.divergence import BadStepError
from fasttrain.training.step import TrainingStep

_SKIPPED_IN_A_ROW = 10  # updates: then the run has diverged


class Figures:
    """Means over the steps between two lines of the journal.

    Args:
        step: Counts on the device.
        clock: Says how fast it went.
        plan: Names the batches.
        runtime: Adds over the ranks.
    """

    def __init__(self, step: TrainingStep, clock: Clock, plan: Plan, runtime: Runtime) -> None:
        self._step, self._clock, self._plan, self._runtime = step, clock, plan, runtime
        self._readout = Readout()

    def take(self, done: int, epoch: int, rate: float) -> None:
        """Start to bring the counters to the host, after `done` steps; every rank calls it."""
        label = {"step": done, "epoch": epoch, "lr": rate, **self._clock.interval()}
        totals = self._runtime.sum(self._step.counters.take())
        bad = self._runtime.smallest(self._step.counters.first_bad.clone())
        self._readout.push(label, torch.cat([totals.double(), bad.double()[None]]))

    def write(self, journal: Journal, wait: bool = False) -> None:
        """Write what has arrived; with `wait`, all that was taken.

        Raises:
            BadStepError: the run has diverged.
        """
        for label, (loss, right, pictures, norm, skipped, bad) in self._readout.arrived(wait):
            if bad < NEVER:
                raise BadStepError(int(bad))
            done = int(label["step"])
            size = self._plan.batch_size
            steps, left_out = round(pictures / size), round(skipped / size)
            counters = self._step.counters
            left_out += counters.skipped_in_a_row
            counters.skipped_in_a_row = 0 if steps else left_out
            if counters.skipped_in_a_row >= _SKIPPED_IN_A_ROW:
                raise BadStepError(done - 1)  # skipping is no cure
            if not steps or not self._runtime.is_main:
                continue  # what was skipped will stand in the next line
            means = {
                "loss": loss / pictures,
                "accuracy": right / pictures,
                "grad_norm": norm / pictures,
            }
            batches = self._plan.digest(done - steps - left_out, done)
            journal.write(
                {"kind": "train", "steps": steps, **means, "skipped": left_out, **label,
                 "batches": batches}
            )  # fmt: skip

    def forget(self) -> None:
        """Drop what was counted and not yet written: the run goes back behind it."""
        self._readout.clear()
        self._step.counters.take()
