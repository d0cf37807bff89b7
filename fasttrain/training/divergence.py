"""A loss or gradient that is not a finite number any more."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 8  # pictures of a bad batch that a message names; a file names all of them


class BadStepError(Exception):
    """The loss or the gradient of step number `step`, from 0, is not a finite number."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


def describe(step: int, indices: Sequence[int], good: str | None, rate: float) -> str:
    """What a user needs to look into a divergence.

    Args:
        step: Counted from 0.
        indices: The pictures of its batch.
        good: The last good checkpoint.
        rate: The optimiser's.
    """
    named = ", ".join(map(str, indices[:_NAMED])) + (", ..." if len(indices) > _NAMED else "")
    return (
        f"training has diverged: the loss or gradient of step {step + 1} is not a finite "
        f"number (training pictures {named}); the last good checkpoint is {good or 'none'}; "
        f"lower optim.lr (now {rate:g}), lengthen schedule.warmup or set "
        "train.on_divergence=rollback"
    )
