"""Writing checkpoints beside the training, which stops only while its state is copied."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from fasttrain.config import Checkpoint
from fasttrain.errors import UserError
from fasttrain.training import checkpoint
from fasttrain.training.checkpoint import Snapshot

_NOTHING_TO_WRITE = "its weights are not finite numbers"  # unless there is another reason


class Saver:
    """Writes one checkpoint at a time, in a thread of its own.

    A disk that is full does not end a run: it is told, the checkpoints that are there stay, and
    the next one is tried again.

    Args:
        root: The folder of checkpoints.
        settings: Which of them stay.
        tell: Shows the user a line.

    Attributes:
        written: The last one that was written, or that the run went on from.
    """

    def __init__(self, root: Path, settings: Checkpoint, tell: Callable[[str], None]) -> None:
        self._root, self._settings, self._tell = root, settings, tell
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None
        self.written: Path | None = None
        self._reason = _NOTHING_TO_WRITE

    def save(self, snapshot: Snapshot | None, journal: bool) -> None:
        """Begin to write; waits only for the one before, should that still be written.

        Args:
            snapshot: What is written; `None` where it would be of no use.
            journal: Whether all that led to it is in the journal, which it may not outlive.
        """
        if snapshot is None:
            self._reason = _NOTHING_TO_WRITE
            return
        self.wait()
        if not journal:
            self._warn("the journal finds no room")
            return
        self._writing = self._thread.submit(
            checkpoint.save, self._root, snapshot, self._settings.keep, self._settings.best
        )

    def rate(self, score: float) -> None:
        """Note a validation accuracy that the last checkpoint was written without."""
        if self.written is not None:
            # A disk that is full or damaged ends no run.
            with suppress(UserError, OSError, ValueError, TypeError):
                checkpoint.rate(self.written, score)

    def wait(self) -> None:
        """Wait until nothing is being written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            self.written, self._reason = writing.result(), _NOTHING_TO_WRITE
        except (UserError, OSError) as error:
            self._warn(str(error))

    def finish(self, step: int) -> None:
        """Wait for the checkpoint after the last step.

        Raises:
            UserError: it could not be written, and nobody could use what the run came to.
        """
        self.wait()
        if self.written != checkpoint.place(self._root, step):
            raise UserError(
                f"{self._root}: the last checkpoint was not written ({self._reason}), and the run "
                "is not complete without it; mend that and go on with --resume"
            )

    def _warn(self, reason: str) -> None:
        self._reason = reason
        self._tell(
            f"warning: no checkpoint was written: {reason}; training goes on, earlier "
            "checkpoints stay, and the next one is tried again"
        )

    def close(self) -> None:
        """Finish what is being written."""
        self.wait()
        self._thread.shutdown()
