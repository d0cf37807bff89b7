"""The other processes of a launch: where they are, what is said when they are gone, and parting."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import torch.distributed as dist

from fasttrain.errors import LostPeerError, UserError

_PARTING = 10.0  # seconds: launchers kill thirty after they have told a process to end


def check_launch() -> None:
    """Refuse what a launcher left half said, which would end as one process or in a traceback.

    Raises:
        UserError: some of what says where the others are is not set.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} not set; start "
            "with accelerate launch or torchrun, which set them all, or unset WORLD_SIZE"
        )


@contextmanager
def explained(explain: Callable[[str], str]) -> Iterator[None]:
    """Turn errors of the network into a `LostPeerError`.

    Args:
        explain: Makes the message, out of the reason that torch gives.
    """
    try:
        yield
    except RuntimeError as error:
        # Gloo's have no class of their own.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        reason = reason.rsplit(".cc:", 1)[-1].split("] ", 1)[-1].strip().rstrip(".")
        raise LostPeerError(explain(reason)) from error


def not_joined(reason: str) -> str:
    """Say that the processes of a launch did not find each other."""
    where = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    return (
        f"the {os.environ.get('WORLD_SIZE')} processes did not find each other ({reason}): all "
        f"must be started, and reach rank 0 at {where}; on machines with several networks set "
        "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the interface that joins them"
    )


def lost(reason: str) -> str:
    """Say that another process does not answer any more."""
    return (
        f"lost contact with another process ({reason}): it has ended, or its machine or the "
        "network failed; what is on disk is whole, go on with --resume"
    )


def part(leave: Callable[[], object]) -> None:
    """Leave the others with `leave`, and go without it where it takes long.

    NCCL first waits for all sums that were begun. When only this process ends, the others never
    add to them, and it would not come to say why until the watchdog has ended the others.
    """

    def try_to() -> None:
        with suppress(RuntimeError):  # the connections may be broken
            leave()

    thread = Thread(target=try_to, name="parting", daemon=True)
    thread.start()
    thread.join(_PARTING)
