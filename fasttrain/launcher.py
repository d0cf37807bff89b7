"""Who started this process, with how many others, and what it may use of the machine."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from fasttrain.errors import UserError

_PR_SET_PDEATHSIG = 1  # prctl.h


def usable_cores() -> int:
    """How many cores this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0))


def is_launched() -> bool:
    """Whether `accelerate launch` or torchrun started this process."""
    return not {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"}.isdisjoint(os.environ)


def follow_launcher() -> None:
    """Have the system send SIGTERM when the launcher ends, so that no trainer outlives it.

    `accelerate launch` with one process does not pass signals on, and dies of SIGUSR1 in any
    case. A process that no launcher started, such as one under nohup, is left alone.
    """
    if is_launched():
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def local_world() -> int:
    """Return the number of ranks that the launcher started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def check_processes(wanted: int | None, by: str, world: int) -> None:
    """Some launches silently run fewer processes than they were told to: refuse those."""
    if wanted is not None and wanted != world:
        raise UserError(
            f"{wanted} processes were asked for by {by}, but {world} started; launch with "
            "'accelerate launch --config_file launch/accelerate/cpu.yaml' on CPUs "
            "('--cpu' and 'distributed_type: MULTI_CPU' start one), multi_gpu.yaml on GPUs"
        )


def processes_asked_for(default_file: Path) -> int | None:
    """The number of processes that the `accelerate launch` which started us was told to start.

    Args:
        default_file: The user's own configuration of Accelerate, which may not be there.
    """
    import psutil
    import yaml

    try:
        parent = psutil.Process().parent()
        if "WORLD_SIZE" in os.environ or parent is None:
            return None
        words = [part for word in parent.cmdline() for part in word.split("=", 1)]
        if not _launches(words):
            return None
        options = {word.replace("-", "_").lstrip("_"): at for at, word in enumerate(words)}
        if "num_processes" in options:
            return int(words[options["num_processes"] + 1])
        if "config_file" in options:
            file = Path(words[options["config_file"] + 1])
        elif "--cpu" in words:
            return None  # then the launcher reads no file
        else:
            file = default_file
        settings = yaml.safe_load(file.read_text()) if file.is_file() else None
        return int((settings or {}).get("num_processes", 1))
    except (
        psutil.Error,
        OSError,
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        yaml.YAMLError,
    ):
        return None  # what the launcher makes of its words is its own affair


def _launches(words: Sequence[str]) -> bool:
    """Whether they are `accelerate launch`, `accelerate-launch` or that module, with their path."""
    names = [Path(word).name for word in words]
    return (
        "accelerate-launch" in names
        or "accelerate.commands.launch" in words
        or any(
            program in ("accelerate", "accelerate.commands.accelerate_cli") and command == "launch"
            for program, command in pairwise(names)
        )
    )
