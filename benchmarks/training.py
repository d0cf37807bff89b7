"""One whole `fasttrain train`, in a process of its own, that survives being cut off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fasttrain.config import load
from fasttrain.errors import UserError
from fasttrain.files import write_text

_ATTEMPTS = "attempts.json"  # the seconds of every process that worked on the run


def train(
    config: Path,
    overrides: list[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train `config` in `folder`, or go on with what is there; return what it came to.

    A run that is already finished is not repeated. `wall_seconds` is the time of all processes
    that worked on it, from start to exit. `environment` is added to theirs.

    Raises:
        UserError: there is another run, or this one fails; it says itself why.
    """
    attempts = folder.parent / f"{folder.name}-{_ATTEMPTS}"
    seconds: list[float] = json.loads(attempts.read_text()) if attempts.exists() else []
    result, begun = folder / "result.json", folder / "config.yaml"
    if begun.exists() and load(begun) != load(config, overrides):
        raise UserError(f"{folder} holds a run with other settings; choose another --keep")
    if not result.exists():
        command = [sys.executable, "-m", "fasttrain", "train", str(config), *overrides]
        resume = ["--resume"] if begun.exists() else []
        start = time.perf_counter()
        try:
            ended = subprocess.run(  # noqa: S603 - our own module
                [*command, "--run-dir", str(folder), *resume],
                check=False,
                env={**os.environ, **(environment or {})},
            )
        finally:
            seconds.append(time.perf_counter() - start)
            write_text(attempts, json.dumps(seconds))
        if ended.returncode:
            raise UserError(f"the run in {folder} ended with exit code {ended.returncode}")
    found: dict[str, Any] = json.loads(result.read_text())
    return {**found, "overrides": overrides, "wall_seconds": sum(seconds), "attempts": len(seconds)}
