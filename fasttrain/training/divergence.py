"""A loss or gradient that is not a finite number any more."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 8  # pictures of a bad batch that a message names; a file names all of them


class BadStepError(Exception):
    """What came of step number `step`, from 0, is not a finite number.

    Attributes:
        what: It is, up to the number of the step.
    """

    def __init__(self, step: int, what: str = "the loss or gradient of step") -> None:
        super().__init__(step)
        self.step, self.what = step, what


def describe(
    bad: BadStepError,
    indices: Sequence[int],
    good: str | None,
    rate: float,
    rollbacks: int,
    goes_back: bool,
) -> str:
    """What a user needs to look into a divergence.

    Args:
        bad: What went wrong.
        indices: The pictures of that batch.
        good: The last good checkpoint.
        rate: The optimiser's.
        rollbacks: How often the run went back already.
        goes_back: Whether it does so by its settings.
    """
    named = ", ".join(map(str, indices[:_NAMED])) + (", ..." if len(indices) > _NAMED else "")
    mends = [f"lower optim.lr (now {rate:g})", "lengthen schedule.warmup"]
    mends += [] if goes_back else ["set train.on_divergence=rollback"]
    after = f" after {rollbacks} rollback{'s' * (rollbacks > 1)}" if rollbacks else ""
    back = f"the last good checkpoint is {good}" if good else "there is no good checkpoint yet"
    return (
        f"training has diverged{after}: {bad.what} {bad.step + 1} is not a finite "
        f"number (training pictures {named}); {back}; "
        f"{', '.join(mends[:-1])} or {mends[-1]}"
    )
