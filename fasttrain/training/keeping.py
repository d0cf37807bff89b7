"""When a run's state is kept, and how it comes back."""

from __future__ import annotations

import time
from collections.abc import Callable

from fasttrain.observe.folder import RunFolder
from fasttrain.observe.journal import Journal
from fasttrain.runtime import Runtime
from fasttrain.training import checkpoint
from fasttrain.training.counters import NEVER
from fasttrain.training.divergence import BadStepError
from fasttrain.training.saving import Saver
from fasttrain.training.state import State
from fasttrain.training.timetable import Timetable
from fasttrain.vote import Vote


class Keeper:
    """Has the run's state written when it is time, and takes it up again.

    Args:
        state: What is kept.
        saver: Writes it.
        folder: Where.
        timetable: When.
        runtime: Where the run goes.
        tell: Shows the user a line.

    Attributes:
        saved: The steps that were done when the state was last saved, or taken up at the start.
    """

    def __init__(
        self,
        state: State,
        saver: Saver,
        folder: RunFolder,
        timetable: Timetable,
        runtime: Runtime,
        tell: Callable[[str], None],
    ) -> None:
        self._state, self._saver, self._folder = state, saver, folder
        self._timetable, self._runtime, self._tell = timetable, runtime, tell
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
        if snapshot is not None:
            self._saver.save(snapshot, whole)
        self.saved, self._saved_at = done, time.monotonic()

    def restore(self) -> int:
        """Take everything up from the newest whole checkpoint; return the steps already done."""
        newest, passed_over = self._runtime.on_main(
            lambda: checkpoint.newest(self._folder.checkpoints)
        )
        for reason in passed_over:
            self._tell(f"passed over {reason}")
        if newest is None:
            self._tell("there is no checkpoint yet: starts from the beginning")
            return 0
        self.saved, self._saver.written = self._state.restore(newest), newest
        return self.saved
