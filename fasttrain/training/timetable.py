"""What is due after which step of a run."""

from __future__ import annotations

from fasttrain.config import Config, Duration
from fasttrain.training.schedule import Rates, gate_temperature, is_due, to_steps


class Timetable:
    """Rates, temperatures and what is due: pure functions of the step.

    Args:
        config: The run.
        steps_per_epoch: Steps for each epoch.

    Attributes:
        total: Steps of the whole run.
        save_seconds: Seconds between checkpoints, where they are written by the minute.
    """

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self._config, self._steps_per_epoch = config, steps_per_epoch
        self.total = config.train.epochs * steps_per_epoch
        self._rates = Rates(config.schedule, steps_per_epoch, self.total)
        self._log = self._steps(config.train.log_every)
        self._evaluation = self._steps(config.train.evaluate_every)
        every = config.checkpoint.every
        self._save, self.save_seconds = self.total, None
        if every is not None and every.unit == "min":
            self.save_seconds = 60 * every.value or None
        elif every is not None:
            self._save = self._steps(every)

    def factor(self, step: int) -> float:
        """Of the optimiser's rates in step number `step`, counted from 0."""
        return self._rates(step)

    def temperature(self, step: int) -> float:
        """Of the gates' softmax in step number `step`, counted from 0."""
        return gate_temperature(self._config.model, step, self._steps_per_epoch, self.total)

    def epoch(self, done: int) -> int:
        """The epoch that the last of `done` steps belongs to, counted from 1."""
        return -(-done // self._steps_per_epoch)

    def log_is_due(self, done: int) -> bool:
        """Whether figures are written after `done` steps; after every epoch they are."""
        return is_due(done, self._log, self.total) or done % self._steps_per_epoch == 0

    def evaluation_is_due(self, done: int) -> bool:
        """Whether the validation split is scored after `done` steps."""
        return is_due(done, self._evaluation, self.total)

    def checkpoint_is_due(self, done: int) -> bool:
        """Whether a checkpoint is written after `done` steps, whatever the time."""
        return is_due(done, self._save, self.total)

    def _steps(self, duration: Duration) -> int:
        return to_steps(duration, self._steps_per_epoch, self.total)
