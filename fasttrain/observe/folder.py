"""The run folder: what a run leaves behind, and where."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fasttrain.answers import Answers
from fasttrain.config import Config, load
from fasttrain.errors import FasttrainError, Outcome, UserError
from fasttrain.files import explain_write_errors, read_json, write_text
from fasttrain.observe import environment
from fasttrain.observe.journal import Record, rewrite
from fasttrain.redact import redact
from fasttrain.steps import by_step

# Seconds in which the helper processes of one that was killed let go of the folder.
_PATIENCE = 10.0


@dataclass(frozen=True)
class RunFolder:
    """Names the files of a run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """What ran, every default written out."""
        return self.path / "config.yaml"

    @property
    def data(self) -> Path:
        """What the run's data set is like: class names, size of the pictures, mean colours."""
        return self.path / "data.json"

    @property
    def environment(self) -> Path:
        """What it runs on, and when and where it was started."""
        return self.path / "environment.json"

    @property
    def journal(self) -> Path:
        """One line for each log and each evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def result(self) -> Path:
        """The final figures; there only when the run is complete."""
        return self.path / "result.json"

    @property
    def outcome(self) -> Path:
        """How the run stands, for launchers and schedulers: they do not pass exit codes on."""
        return self.path / "outcome.json"

    @property
    def lock(self) -> Path:
        """Held by the process that works in the folder."""
        return self.path / ".lock"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def heartbeat(self) -> Path:
        """How far the run is, and when it last showed a sign of life (`observe.heartbeat`)."""
        return self.path / "heartbeat.json"

    def write_heartbeat(self, figures: dict[str, Any]) -> None:
        """Replace the heartbeat; errors as `files.write_text`."""
        _write_json(self.heartbeat, figures)

    def sweep_heartbeat(self) -> None:
        """Remove what killed processes left aside of it."""
        with suppress(OSError):
            for part in self.path.glob(f".{self.heartbeat.name}.*.part"):
                part.unlink()

    def newest_checkpoint(self) -> tuple[int, float] | None:
        """The step of the newest checkpoint, and the Unix time at which it was written."""
        with suppress(OSError, UserError):  # the file system is in trouble
            for step, newest in reversed(by_step(self.checkpoints)):
                with suppress(OSError):  # it was deleted meanwhile
                    return step, (newest / "state.pt").stat().st_mtime
        return None

    def begin(
        self,
        config: Config,
        records: Sequence[Record] = (),
        data: Mapping[str, Any] | None = None,
        first: int = 0,
    ) -> None:
        """Write what runs, on which `data` and on what; let the journal hold `records`.

        The environment is that of the last start; of every start it keeps when, where, and at
        which step, the `first`.

        Raises:
            UserError: there is no room, or no right to write there.
        """
        # By value first, as a mask has to be quoted.
        track = config.track.model_copy(update={"project": redact(config.track.project)})
        shown = config.model_copy(update={"track": track}).to_yaml()
        write_text(self.config, redact(shown))
        self.conclude("running", None)
        if data is not None:
            _write_json(self.data, data)
        before = (read_json(self.environment) or {}).get("starts", [])
        now = {"time": _now(), "step": first, "host": platform.node()}
        _write_json(self.environment, {**environment.describe(), "starts": [*before, now]})
        rewrite(self.journal, records)

    def conclude(self, outcome: Outcome, exit_code: int | None, message: str = "") -> None:
        """Write how the run stands; `exit_code` is `None` while it goes on."""
        about = {"outcome": outcome, "exit_code": exit_code, "message": message}
        if self.config.exists():  # else no run has begun
            _write_json(self.outcome, about)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from working in the folder meanwhile.

        The system lets go of the lock when the process ends, however it ends. A folder in which
        no run began, because something was wrong, is taken away again.

        Raises:
            UserError: another one works there, or the folder cannot be written.
        """
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        with explain_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.lock, timeout=_PATIENCE)
            try:
                lock.acquire()
            except Timeout:
                raise UserError(
                    f"{self.path}: another process works on this run; wait for its end, or "
                    "choose another --run-dir"
                ) from None
        try:
            yield
        finally:
            if made and not self.config.exists():
                shutil.rmtree(self.path, ignore_errors=True)
                with suppress(OSError):  # others may use them by now
                    for parent in made[1:]:
                        parent.rmdir()
            lock.release()

    def finish(self, result: dict[str, Any]) -> None:
        """Write the final figures, and that the run is complete."""
        _write_json(self.result, result)
        self.conclude("complete", 0)

    def fail(self, error: BaseException) -> None:
        """Write how it ended, as far as the disk lets: what happened first is what matters."""
        with suppress(UserError, OSError):
            if isinstance(error, FasttrainError):
                self.conclude(error.outcome, error.exit_code, str(error))
            else:
                self.conclude("failed", 1, f"{type(error).__name__}: {error}")

    def finished(self) -> dict[str, Any] | None:
        """The final figures of a run that is complete, and now says so in any case.

        Raises:
            UserError: they are there, and cannot be read.
        """
        if not self.result.exists():
            return None
        result = read_json(self.result)
        if result is None:
            raise UserError(
                f"{self.result}: cannot be read; delete it and run again: the run goes on from its "
                "last checkpoint, and writes it anew"
            )
        self.conclude("complete", 0)
        return result

    def write_divergence(self, about: dict[str, Any]) -> None:
        """Write where a run diverged: the step, its pictures, the last good checkpoint.

        A disk that is full does not hide that it did.
        """
        with suppress(UserError, OSError):
            _write_json(self.path / "divergence.json", about)

    @property
    def samples(self) -> Path:
        """A picture of what the model sees of its training pictures."""
        return self.path / "samples.png"

    @property
    def report(self) -> Path:
        """The page that shows all of it."""
        return self.path / "report.html"

    def answers(self, split: str) -> Path:
        """The answers to every picture of `validation` or `test`, as they were scored last."""
        return self.path / f"answers-{split}.npz"

    def write_answers(self, split: str, answers: Answers) -> None:
        """Keep what was answered; a disk that is full costs the report, and not the run."""
        with suppress(UserError, OSError):
            answers.save(self.answers(split))

    def stacks(self, rank: int) -> Path:
        """Where a rank that hangs writes the stacks of its threads."""
        return self.path / f"stacks-rank{rank}.txt"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, redact(json.dumps(content, indent=2)) + "\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def open_run(path: Path) -> tuple[RunFolder, Config]:
    """Open an existing run.

    Raises:
        UserError: there is no run in that folder, or it cannot be looked into.
    """
    folder = RunFolder(path)
    try:
        there, is_file = folder.config.exists(), path.is_file()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if is_file:
        what = "a configuration" if path.suffix in (".yaml", ".yml") else "a file"
        raise UserError(f"{path}: this is {what}, not a run; name a folder under runs/")
    if not there:
        raise UserError(f"{path}: there is no run here (no config.yaml); name a folder under runs/")
    return folder, load(folder.config)
