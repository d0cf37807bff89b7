"""Finding records: the newest whole ones of a name, from machines with a GPU or without one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fasttrain.errors import UserError

Record = dict[str, Any]
_STAMP = len("20260131-235959")  # ends the name of every record


def newest(records: Path, pattern: str) -> tuple[Path, Record]:
    """The last record of that name that is no first look, from a machine without a GPU.

    Raises:
        UserError: there is none.
    """
    for path, record in whole(records, pattern):
        return path, record
    name = re.split(r"\W", pattern)[0]
    raise UserError(f"{records} holds no record of {name}; run python -m benchmarks")


def whole(records: Path, pattern: str, gpu: bool = False) -> Iterator[tuple[Path, Record]]:
    """The records of such names that are no first looks, newest first."""
    form = re.compile(rf"{pattern}-\d{{8}}-\d{{6}}\.json")
    by_time = sorted(records.glob("*.json"), key=lambda path: path.stem[-_STAMP:], reverse=True)
    for path in by_time:
        if form.fullmatch(path.name):
            record: Record = json.loads(path.read_text())
            if not record["quick"] and bool(record["environment"]["gpus"]) == gpu:
                yield path, record


def each(records: Path, pattern: str, gpu: bool = False) -> dict[str, tuple[Path, Record]]:
    """The newest of them for every name there is, by name."""
    found: dict[str, tuple[Path, Record]] = {}
    for path, record in whole(records, pattern, gpu):
        found.setdefault(path.stem[: -_STAMP - 1], (path, record))
    return dict(sorted(found.items()))
