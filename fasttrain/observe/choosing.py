"""Which folder a run writes to: a new one, or that of the run that goes on."""

from __future__ import annotations

import itertools
import os
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from fasttrain.config import Config, load
from fasttrain.errors import UserError
from fasttrain.files import check_writable
from fasttrain.observe.folder import RunFolder
from fasttrain.redact import redact


def choose(config: Config, explicit: Path | None, resume: bool, changed: bool = False) -> RunFolder:
    """Settle which folder a run writes to, before anything is computed.

    Args:
        config: Names the run.
        explicit: `--run-dir`; by default a new folder under `runs/`.
        resume: `--resume`: the folder may hold a run, and goes on with it, or anything else: a
            scheduler's script says so from its first start on.
        changed: `--allow-changes`: it may go on under other settings, on the same batches.

    Raises:
        UserError: the folder holds a run already, or one of other settings or, without `resume`,
            other files; it cannot be written; a setting would be masked there; or `changed` is
            said of a new run.
    """
    _check_unmasked(config)
    if changed and not resume:
        raise UserError("--allow-changes needs --resume and --run-dir DIR: the run to go on with")
    if explicit is None:
        if resume:
            raise UserError("--resume needs --run-dir DIR: the run to go on with")
        return RunFolder(_unused(f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"))
    check_writable(explicit)
    folder = RunFolder(explicit)
    if folder.config.exists() and resume:
        _check_same(config, folder, changed)
    elif folder.config.exists() or folder.result.exists():
        raise UserError(
            f"{explicit} already holds a run; add --resume to go on with it, "
            "or choose another --run-dir"
        )
    elif not resume and (other := _other_file(explicit)):
        raise UserError(
            f"{explicit} holds other files, such as {other}; choose a new or empty folder as "
            "--run-dir"
        )
    return folder


# What may lie in a folder before its run begins: its recipe; what a start that was killed, a
# scheduler, a launcher or a disk leaves there. Hidden files may, too.
_EXPECTED = (
    ".*", "*.yaml", "*.yml", "compiled", "stacks-rank*.txt", "log", "*.log", "*.out", "*.err",
    "error.json", "lost+found",
)  # fmt: skip


def _other_file(folder: Path) -> Path | None:
    """A file that no run has to do with; `None` where there is none."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_expected(name)]
        for name in files:
            if not _is_expected(name):
                return Path(place, name)
    return None


def _is_expected(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _EXPECTED)


# What may change between the parts of one run: where and how it is executed, not what it trains.
_FREE = {
    "name", "data.path", "data.loader", "data.workers", "train.device", "train.compile",
    "train.cuda_graphs", "train.processes", "train.watchdog", "checkpoint.every", "checkpoint.keep",
    "checkpoint.best", "track.wandb", "track.project", "track.report", "track.metrics_port",
}  # fmt: skip


def _check_same(config: Config, folder: RunFolder, changed: bool) -> None:
    """Refuse to go on with a run under settings that would make it another one.

    Those on which the batches depend can never change, nor can any of a run that is complete.
    """
    begun = load(folder.config)
    new, old = flat(config.model_dump(mode="json")), flat(begun.model_dump(mode="json"))
    keys = sorted(key for key in (new.keys() | old.keys()) - _FREE if new.get(key) != old.get(key))
    batches = [key for key in keys if key == "seed" or key.startswith("data.")]
    can_change = not batches and not folder.result.exists()
    if not keys or (changed and can_change):
        return
    told = ", ".join(f"{key}={new.get(key)} (it was {old.get(key)})" for key in keys)
    why = f"the batches depend on {', '.join(batches)}; " if batches else ""
    flag = "add --allow-changes, " if can_change else ""
    raise UserError(
        f"{folder.path} was begun with other settings: {told}; {why}go on with {folder.config}, "
        f"{flag}or choose another --run-dir"
    )


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        branch = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if branch else {f"{prefix}{key}": value}
    return found


def _check_unmasked(config: Config) -> None:
    """Refuse what would be masked in the run's own config.yaml, which could not be used again.

    What a run is tracked as may be: nothing takes it from there.
    """
    for key, value in flat(config.model_dump(mode="json", exclude={"track"})).items():
        if redact(str(value)) != str(value):
            raise UserError(
                f"{key}: what it is set to looks like a secret, or is the value of an environment "
                "variable that holds one, and would be masked in config.yaml; choose another"
            )


def _unused(name: str) -> Path:
    """A folder under `runs/` that is not there yet, also when two runs start in one second."""
    names = itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2)))
    return next(path for path in map(Path("runs").joinpath, names) if not path.exists())
