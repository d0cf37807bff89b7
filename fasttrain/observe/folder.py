"""The run folder: what a run leaves behind, and where."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasttrain.config import Config, load
from fasttrain.errors import UserError
from fasttrain.files import check_writable, write_text
from fasttrain.observe import environment


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
    def journal(self) -> Path:
        """One line for each log and each evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def result(self) -> Path:
        """The final figures; there only when the run is complete."""
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def begin(self, config: Config) -> None:
        """Write what runs and on what.

        Raises:
            UserError: there is no room, or no right to write there.
        """
        write_text(self.config, config.to_yaml())
        about = json.dumps(environment.describe(), indent=2)
        write_text(self.path / "environment.json", about + "\n")

    def finish(self, result: dict[str, Any]) -> None:
        """Write the final figures."""
        write_text(self.result, json.dumps(result, indent=2) + "\n")


def choose(config: Config, explicit: Path | None, resume: bool) -> RunFolder:
    """Settle which folder a run writes to, before anything is computed.

    Args:
        config: Names the run.
        explicit: `--run-dir`; by default a new folder under `runs/`.
        resume: `--resume`: the folder may hold a run, and goes on with it.

    Raises:
        UserError: the folder holds a run already, or cannot be written.
    """
    if explicit is None:
        if resume:
            raise UserError("--resume needs --run-dir DIR: the run to go on with")
        return RunFolder(_unused(f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"))
    check_writable(explicit)
    folder = RunFolder(explicit)
    if folder.config.exists() and resume:
        _check_same(config, load(folder.config), explicit)
    elif folder.config.exists():
        raise UserError(
            f"{explicit} already holds a run; add --resume to go on with it, "
            "or choose another --run-dir"
        )
    if folder.result.exists():
        raise UserError(f"{explicit} holds a run that is complete; choose another --run-dir")
    return folder


# What may change between the parts of one run: where and how it is executed, not what it trains.
_FREE = {
    "name", "data.path", "data.loader", "data.workers", "train.device", "train.compile",
    "train.processes", "checkpoint.every", "checkpoint.keep", "track.wandb", "track.project",
}  # fmt: skip


def _check_same(config: Config, begun: Config, path: Path) -> None:
    """Refuse to go on with a run under settings that would make it another one."""
    new, old = _flat(config.model_dump(mode="json")), _flat(begun.model_dump(mode="json"))
    changed = [
        f"{key}={new.get(key)} (it was {old.get(key)})"
        for key in sorted(new.keys() | old.keys())
        if key not in _FREE and new.get(key) != old.get(key)
    ]
    if changed:
        raise UserError(
            f"{path} was begun with other settings: {', '.join(changed)}; "
            f"go on with {path}/config.yaml, or choose another --run-dir"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        branch = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if branch else {f"{prefix}{key}": value}
    return flat


def _unused(name: str) -> Path:
    """A folder under `runs/` that is not there yet, also when two runs start in one second."""
    names = itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2)))
    return next(path for path in map(Path("runs").joinpath, names) if not path.exists())


def open_run(path: Path) -> tuple[RunFolder, Config]:
    """Open an existing run.

    Raises:
        UserError: there is no run in that folder, or it cannot be looked into.
    """
    folder = RunFolder(path)
    try:
        there = folder.config.exists()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not there:
        raise UserError(f"{path}: there is no run here (no config.yaml); name a folder under runs/")
    return folder, load(folder.config)
