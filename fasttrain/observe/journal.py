"""The journal: `metrics.jsonl`, one JSON object a line, the truth about a run.

Every sink (the progress line, Weights & Biases) is shown the records that were written there and
nothing else. A record has a `kind`:

- `train`: means over the last `steps` steps: `step`, `epoch`, `loss`, `accuracy`, `lr`,
  `images_per_second`, `data_stall`, `seconds` of training so far;
- `evaluation`: `step`, `epoch`, `split`, `loss`, `accuracy`, `count`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from fasttrain.files import explain_write_errors, write_text

Record = dict[str, Any]


class Sink(Protocol):
    """Somewhere the journal's records are shown."""

    def show(self, record: Record) -> None:
        """Show one record that the journal holds."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...


class Journal:
    """Appends records to a file and shows them to the sinks.

    Args:
        path: The file; `None` on ranks that only take part, whose records go nowhere.
        sinks: Who is shown every record.

    Raises:
        UserError: there is no room, or no right to write there.
    """

    def __init__(self, path: Path | None, sinks: Sequence[Sink] = ()) -> None:
        self._path = path or Path(os.devnull)
        self._sinks = sinks
        with explain_write_errors(self._path):
            self._file = self._path.open("a", encoding="utf-8", buffering=1)

    def write(self, record: Record) -> None:
        """Append one record as a line, then show it."""
        with explain_write_errors(self._path):
            self._file.write(json.dumps(record) + "\n")
        for sink in self._sinks:
            sink.show(record)

    def close(self) -> None:
        """Close the file and the sinks."""
        self._file.close()
        for sink in self._sinks:
            sink.close()


def read(path: Path) -> list[Record]:
    """Return all whole records of a journal; a line cut off by a crash is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def cut_back(path: Path, step: int) -> None:
    """Drop what was written after `step`, so that a resumed run writes it once.

    The test score goes too: it belongs behind the last step, and is taken again.
    """
    kept = [
        record for record in read(path) if record["step"] <= step and record.get("split") != "test"
    ]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
