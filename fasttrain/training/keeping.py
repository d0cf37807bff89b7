"""When a run's state is kept, and how it comes back."""

from __future__ import annotations

import time
from collections.abc import Callable

from fasttrain.config import Config
from fasttrain.data.plan import Plan
from fasttrain.errors import DivergedError, FasttrainError, UserError
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.journal import Journal
from fasttrain.training import checkpoint, divergence
from fasttrain.training.counters import NEVER
from fasttrain.training.divergence import BadStepError
from fasttrain.training.saving import Saver
from fasttrain.training.state import State
from fasttrain.training.timetable import Timetable
from fasttrain.vote import Vote


class Keeper:
    """Has the run's state written when it is time, and takes it up again.

    Args:
        config: The run.
        state: What is kept.
        saver: Writes it.
        folder: Where.
        timetable: When.
        plan: Names the pictures of a bad batch.
        tell: Shows the user a line.

    Attributes:
        saved: The steps that were done when the state was last saved, or taken up at the start.
    """

    def __init__(
        self,
        config: Config,
        state: State,
        saver: Saver,
        folder: RunFolder,
        timetable: Timetable,
        plan: Plan,
        tell: Callable[[str], None],
    ) -> None:
        self._config, self._state, self._saver, self._folder = config, state, saver, folder
        self._timetable, self._plan, self._tell = timetable, plan, tell
        self._runtime = state.runtime
        self.saved, self._saved_at = 0, time.monotonic()

    def minutes_are_over(self) -> bool:
        """Whether it is time for the next checkpoint by the main rank's clock, if by any."""
        seconds = self._timetable.save_seconds
        if seconds is None or not self._runtime.is_main:
            return False
        return time.monotonic() - self._saved_at >= seconds

    def is_due(self, done: int, time_is_up: bool) -> bool:
        """Whether all ranks save now; votes cast before the last save mean that one."""
        timed = time_is_up and done > self.saved + Vote.LAG
        return timed or self._timetable.checkpoint_is_due(done)

    def look_for_bad_steps(self) -> None:
        """Wait for what the device still has to do; every rank calls it.

        Raises:
            BadStepError: the first step that has gone wrong.
        """
        bad = int(self._runtime.smallest(self._state.step.counters.first_bad.clone()))
        if bad < NEVER:
            raise BadStepError(bad)

    def save(self, done: int, accuracy: float | None, journal: Journal) -> None:
        """Copy the run's state and begin to write it; every rank calls it.

        Args:
            done: Steps.
            accuracy: On the validation split, where it is known.
            journal: Is on the disk first.

        Raises:
            BadStepError: it would be kept behind a bad step.
        """
        self.look_for_bad_steps()
        whole = journal.sync()
        self._state.journal = journal.records
        snapshot = self._state.snapshot(done, accuracy)
        self._saver.save(snapshot, whole)
        self.saved, self._saved_at = done, time.monotonic()

    def restore(self) -> int:
        """Take everything up from the newest whole checkpoint; return the steps already done.

        Raises:
            UserError: they are more than the run is to have.
            FasttrainError: there are checkpoints, and none can be used, perhaps for a moment: a run
                from the beginning would delete them.
        """
        newest, passed_over = self._runtime.on_main(
            lambda: checkpoint.newest(self._folder.checkpoints)
        )
        for reason in passed_over:
            self._tell(f"passed over {reason}")
        if newest is None and passed_over:
            raise FasttrainError(
                f"{self._folder.checkpoints}: none of {len(passed_over)} can be used "
                f"({passed_over[0]}); mend that, or delete them to start from the beginning"
            )
        if newest is None:
            self._tell("there is no checkpoint yet: starts from the beginning")
            return 0
        self.saved, self._saver.written = self._state.restore(newest), newest
        if self.saved > self._timetable.total:
            raise UserError(
                f"train.epochs: the run ends after {self._timetable.total} steps, and "
                f"{self._folder.path} has gone {self.saved}; choose more epochs, or another "
                "--run-dir"
            )
        return self.saved

    def go_back(self, bad: BadStepError) -> int:
        """After a bad step: take up the newest checkpoint's weights, as often as the run may.

        The clock goes on: what was trained in vain took its time, too.

        Args:
            bad: What went wrong.

        Returns:
            The steps that were done when the checkpoint was made.

        Raises:
            DivergedError: it may not, or there is nothing to go back to.
        """
        self._saver.wait()
        train = self._config.train
        newest, _ = self._runtime.on_main(lambda: checkpoint.newest(self._folder.checkpoints))
        rollbacks = self._state.rollbacks + 1
        if train.on_divergence != "rollback" or newest is None or rollbacks > train.rollbacks:
            raise DivergedError(self._describe_bad(bad, newest.name if newest else None))
        clock = self._state.clock.state()
        kept, self._saver.written = self._state.restore(newest), newest
        self._state.clock.restore(clock)
        self._state.rollbacks = rollbacks
        return kept

    def _describe_bad(self, bad: BadStepError, good: str | None) -> str:
        """What a user needs to look into a divergence; the whole batch stands in a file."""
        indices = self._plan.batch(bad.step).indices.tolist()
        if self._runtime.is_main:
            content = {"step": bad.step + 1, "pictures": indices, "good": good}
            self._folder.write_divergence(content)
        goes_back = self._config.train.on_divergence == "rollback"
        rate, gone = self._config.optim.lr, self._state.rollbacks
        return divergence.describe(bad, indices, good, rate, gone, goes_back)
