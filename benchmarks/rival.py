"""Someone else's training, run in turn with ours: a command that says what it reached.

Nobody else's code is part of this project. Whoever has a copy of it gives the command that trains
once; the last line it prints is a JSON object with `accuracy`, as a share, and `seconds`, on its
own clock.
"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

from fasttrain.errors import UserError
from fasttrain.files import write_text


def run(command: str, seed: int, keep: Path) -> dict[str, Any]:
    """Let a rival train with a seed; what the same command reached before is taken from `keep`.

    Args:
        command: Its command line; `{seed}` in it is replaced by the number.
        seed: Of the run.
        keep: A JSON file.

    Returns:
        `command`, `accuracy`, `seconds`, and `wall_seconds` of the whole process.

    Raises:
        UserError: the command does not end well, its last line is something else, or another
            command's result is kept there.
    """
    if not keep.exists():
        line = command.replace("{seed}", str(seed))
        start = time.perf_counter()
        # The command is the user's own, and no shell reads it.
        done = subprocess.run(shlex.split(line), stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
        wall = time.perf_counter() - start
        if done.returncode:
            raise UserError(f"--rival: '{line}' ended with exit code {done.returncode}")
        found = {"command": command, **_last_line(line, done.stdout), "wall_seconds": wall}
        keep.parent.mkdir(parents=True, exist_ok=True)
        write_text(keep, json.dumps(found))
    kept: dict[str, Any] = json.loads(keep.read_text())
    if kept["command"] != command:
        raise UserError(f"{keep} is of another --rival, '{kept['command']}'; choose another --keep")
    if figures(kept) is None:
        raise UserError(f"{keep} holds no accuracy from 0 to 1, or no seconds above 0; delete it")
    return kept


def figures(said: Any) -> dict[str, float] | None:
    """Accuracy, from 0 to 1, and seconds, above 0, of what a rival said; None where it has none."""
    try:
        accuracy, seconds = float(said["accuracy"]), float(said["seconds"])
    except (KeyError, TypeError, ValueError):
        return None
    if not (0 <= accuracy <= 1 and 0 < seconds < math.inf):
        return None
    return {"accuracy": accuracy, "seconds": seconds}


def _last_line(command: str, output: str) -> dict[str, float]:
    try:
        found = figures(json.loads(output.strip().splitlines()[-1]))
    except (ValueError, IndexError):
        found = None
    if found is None:
        raise UserError(
            f"--rival: the last line that '{command}' prints is no JSON object with the numbers "
            "'accuracy', from 0 to 1, and 'seconds', above 0"
        )
    return found
