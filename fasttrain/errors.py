"""What can go wrong, by whose hand, and the exit code that says so."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["running", "complete", "stopped", "diverged", "refused", "failed"]


class FasttrainError(Exception):
    """An expected end of a command: one line for the user, no traceback.

    Attributes:
        exit_code: Of the command.
        outcome: Of a run that ends so, in its folder.
    """

    exit_code = 1
    outcome: Outcome = "failed"


class UserError(FasttrainError):
    """The user's input cannot be used; the message says what, where, and the mend."""

    exit_code = 2
    outcome = "refused"


class DivergedError(FasttrainError):
    """The loss or a gradient is not a finite number any more."""

    exit_code = 3
    outcome = "diverged"


class StoppedError(FasttrainError):
    """A signal stopped the run, behind a checkpoint or ahead of its first step: run it again."""

    exit_code = 75
    outcome = "stopped"


class LostPeerError(FasttrainError):
    """Another process, its machine or the network failed; what is on disk is whole."""


def nearest(name: str, valid: list[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest valid name, or an empty string."""
    from difflib import get_close_matches

    matches = get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""
