"""The journal: `metrics.jsonl`, one JSON object a line, the truth about a run.

Every sink (the progress line, Weights & Biases) is shown the records that were written there and
nothing else. A record has a `kind`:

- `train`: means over the last `steps` steps: `step`, `epoch`, `loss`, `accuracy`, `lr`,
  `grad_norm`, `images_per_second`, `data_stall`, `seconds` of training so far; `skipped` steps,
  which count nowhere else; `batches`, a hash of what was in them;
- `evaluation`: `step`, `epoch`, `split`, `loss`, `accuracy`, `top5` (with more than five
  classes), `count`, and the accuracy `per_class`;
- `rollback`: after `step` the run went back to the weights of the checkpoint of step `to`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fasttrain.errors import UserError
from fasttrain.files import explain_write_errors, write_text

Record = dict[str, Any]

# What a record is not whole without: figures that are read without asking whether they are there.
_FIGURES = {
    "train": ("step", "epoch", "steps", "loss", "accuracy", "images_per_second", "data_stall",
              "seconds"),
    "evaluation": ("step", "epoch", "accuracy", "count"),
    "rollback": ("step", "epoch", "to"),
}  # fmt: skip


class Sink:
    """Somewhere the journal's records are shown; each kind overrides what concerns it."""

    def show(self, record: Record) -> None:
        """Show one record that the journal holds."""

    def hurry(self) -> None:
        """The process is to end within seconds."""

    def close(self) -> None:
        """The run has ended."""


class Journal:
    """Appends records to a file and shows them to the sinks.

    A disk that is full ends no run: what could not be written is kept and written as soon as
    there is room.

    Args:
        path: The file; `None` on ranks that only take part, whose records go nowhere.
        sinks: Who is shown every record.
        tell: Shows the user a line.
        records: How many the file holds already.

    Attributes:
        records: How many it holds now.

    Raises:
        UserError: there is no right to write there.
    """

    def __init__(
        self,
        path: Path | None,
        sinks: Sequence[Sink] = (),
        tell: Callable[[str], None] = lambda line: None,  # noqa: ARG005 - silent
        records: int = 0,
    ) -> None:
        self._path = path or Path(os.devnull)
        self._sinks, self._tell = sinks, tell
        self._waiting, self.records = b"", records
        with explain_write_errors(self._path):
            self._file = self._path.open("ab", buffering=0)

    def write(self, record: Record) -> None:
        """Append one record as a line, then show it."""
        line = json.dumps(record) + "\n"
        told = bool(self._waiting)
        self._waiting += line.encode()
        self.records += 1
        try:
            self._append()
        except OSError as error:
            if not told:
                self._tell(
                    f"warning: cannot write {self._path}: {error.strerror}; training goes on, and "
                    "what is missing is written when that is possible again"
                )
        for sink in self._sinks:
            sink.show(record)

    def _append(self) -> None:
        """Write what waits; a disk that fills up may take only a part of it."""
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) or 0 :]

    def sync(self) -> bool:
        """Flush to the device; return whether all of it is in the file."""
        with suppress(OSError):  # devnull, or a disk in trouble, which `write` has told
            self._append()
            os.fsync(self._file.fileno())
        return not self._waiting

    def hurry(self) -> None:
        """Let no sink take long to close."""
        for sink in self._sinks:
            sink.hurry()

    def close(self) -> None:
        """Close the file and the sinks."""
        self.sync()
        self._file.close()
        for sink in self._sinks:
            sink.close()


def read(path: Path) -> list[Record]:
    """Return all whole records of a journal; what else stands there is left out.

    That is a line cut off by a crash, or written by another hand. Without a journal there is none.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    records = []
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and _is_whole(record):
                records.append(record)
    return records


def _is_whole(record: Record) -> bool:
    figures = _FIGURES.get(str(record.get("kind")))
    if figures is None:
        return False
    return all(isinstance(record.get(name), int | float) for name in figures)


def until(path: Path, step: int) -> list[Record]:
    """What was written up to `step`, without the test score, which is taken again at the end."""
    return [
        record for record in read(path) if record["step"] <= step and record.get("split") != "test"
    ]


def speed(records: Sequence[Record]) -> tuple[float, float]:
    """Images a second, and the share of the time spent waiting for data, over `train` records.

    Each counts by the time that its steps took at its rate; one without a rate, of the step in
    which code was generated, does not count, and both are 0 where there is no other.
    """
    timed = [record for record in records if record["images_per_second"]]
    if not timed:
        return 0.0, 0.0
    # Seconds for one picture of every batch: the size of a batch is the same in all of them.
    steps = [record["steps"] + record.get("skipped", 0) for record in timed]
    seconds = [
        count / record["images_per_second"] for count, record in zip(steps, timed, strict=True)
    ]
    waited = sum(rec["data_stall"] * took for rec, took in zip(timed, seconds, strict=True))
    return sum(steps) / sum(seconds), waited / sum(seconds)


def rewrite(path: Path, records: Sequence[Record]) -> None:
    """Let a journal hold these records and no others; errors as `files.write_text`."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
