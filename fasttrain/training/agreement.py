"""Before anything long begins: do all ranks run the same thing, on the same data?"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasttrain.config import Config
from fasttrain.errors import UserError
from fasttrain.files import explain_write_errors
from fasttrain.launcher import local_world
from fasttrain.observe.choosing import flat
from fasttrain.observe.environment import installed_version
from fasttrain.observe.folder import RunFolder
from fasttrain.runtime import Runtime

# What may be another on every machine.
_LOCAL = {"data.path", "data.workers", "track.metrics_port"}
_PATIENCE = 3.0  # seconds that a shared file system may take to show a new file
# Seconds: the launcher ends all ranks when the first one leaves, and one is still to speak.
_HEAD_START = 1.0


@dataclass(frozen=True)
class Member:
    """What a rank tells the others.

    Attributes:
        rank: Its number.
        host: Its machine.
        fasttrain: The version that it runs.
        config: A hash of its settings, but for those that a machine may have of its own.
        data: The digest of its data set, where it has one.
        problem: Why it has none.
        sees: Whether it sees the run folder that the main rank writes.
    """

    rank: int
    host: str
    fasttrain: str | None
    config: str | None
    data: str | None
    problem: str | None = None
    sees: bool = True


def member(runtime: Runtime, config: Config | None, data: str | None, **more: Any) -> Member:
    """Describe this rank."""
    return Member(
        runtime.rank,
        platform.node(),
        installed_version("fasttrain"),
        digest(config) if config else None,
        data,
        **more,
    )


def digest(config: Config) -> str:
    """A short hash of the settings that must be the same on every rank."""
    return hashlib.sha256(json.dumps(_shared(config)).encode()).hexdigest()[:16]


def _shared(config: Config) -> dict[str, str]:
    settings = flat(config.model_dump(mode="json"))
    return {key: str(value) for key, value in sorted(settings.items()) if key not in _LOCAL}


def differing(runtime: Runtime, members: list[Member], config: Config | None) -> str | None:
    """Name what the ranks do not have in common; every rank calls it with the same members."""
    for one in members:
        if one.problem:
            return f"rank {one.rank} on {one.host}: {one.problem}"
    for what, values in (
        ("versions of fasttrain", [one.fasttrain for one in members]),
        ("data", [one.data for one in members]),
    ):
        if len(set(values)) > 1:
            return f"the ranks have different {what}: {name_each(members, values)}"
    if len({one.config for one in members}) > 1:
        everywhere = runtime.collect(_shared(config) if config else {})
        keys = sorted({key for each in everywhere for key in each})
        odd = [key for key in keys if len({each.get(key) for each in everywhere}) > 1]
        told = [
            f"{key} is {name_each(members, [one.get(key) for one in everywhere])}" for key in odd
        ]
        return f"the ranks have different settings: {'; '.join(told)}"
    return None


def name_each(members: list[Member], values: Sequence[Any]) -> str:
    """`0 on rank 0 (host), 1 on rank 1 (host)`: each value with the first rank that has it."""
    first: dict[Any, Member] = {}
    for one, value in zip(members, values, strict=True):
        first.setdefault(value, one)
    return ", ".join(f"{value} on rank {one.rank} ({one.host})" for value, one in first.items())


def refuse(runtime: Runtime, message: str) -> None:
    """Refuse to go on; every rank calls it, and one of each machine says it.

    Raises:
        UserError: always.
    """
    if not runtime.is_first_here:
        time.sleep(_HEAD_START)
    raise UserError(message if runtime.is_first_here else "")


def check(
    runtime: Runtime,
    config: Config,
    folder: RunFolder,
    data: str | None,
    problem: str | None,
    resume: bool,
    tell: Callable[[str], None],
) -> None:
    """Let all ranks compare what they have; one small exchange.

    Args:
        runtime: Where this runs.
        config: This rank's.
        folder: The run.
        data: Digest of this rank's data set.
        problem: ... or why it has none.
        resume: Whether the run may go on from a checkpoint, which every rank reads.
        tell: Shows the user a line.

    Raises:
        UserError: something differs, a rank lacks its data, or the run folder is to be read on a
            machine that does not share it. One rank of each machine has the message.
    """
    token, needed = runtime.on_main(lambda: _leave_token(runtime, config, folder, resume))
    sees = token is None or _is_seen(folder.path / token)
    members = runtime.collect(member(runtime, config, data, problem=problem, sees=sees))
    if token is not None and runtime.is_main:
        (folder.path / token).unlink(missing_ok=True)
    found = differing(runtime, members, config)
    if found:
        refuse(runtime, f"{found}; every rank needs the same")
    blind = sorted({one.host for one in members if not one.sees})
    if blind:
        place = f"{folder.path} is not shared with {', '.join(blind)}"
        if needed:
            mend = "put the run on a file system that all machines share, under the same path"
            refuse(runtime, f"{place}, where its checkpoints are to be read; {mend}")
        tell(f"warning: {place}: to go on from a checkpoint it must be")


def _leave_token(
    runtime: Runtime, config: Config, folder: RunFolder, resume: bool
) -> tuple[str | None, bool]:
    """With several machines, a file that all of them should see; and whether they must."""
    if runtime.world == local_world():
        return None, False
    name = f".shared-{secrets.token_hex(8)}"
    with explain_write_errors(folder.path / name):
        for left in folder.path.glob(".shared-*"):
            left.unlink(missing_ok=True)
        (folder.path / name).touch()
    needed = config.train.on_divergence == "rollback" or (
        resume and folder.newest_checkpoint() is not None
    )
    return name, needed


def _is_seen(token: Path) -> bool:
    end = time.monotonic() + _PATIENCE
    while not token.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
