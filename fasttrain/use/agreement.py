"""Whether an exported file answers as the model it was made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasttrain.errors import FasttrainError
from fasttrain.use.classifier import Classifier
from fasttrain.use.formats import Answering

# Of a logit, as a share of the largest one, or of 1 where all are smaller: float32 sums in another
# order differ by some millionths.
TOLERANCE = 1e-4
_BATCH = 100  # pictures; the first batch has one, the smallest that must work


@dataclass(frozen=True)
class Agreement:
    """How far two models agree on some pictures.

    Attributes:
        pictures: How many were shown.
        same: For how many both name the same class.
        ties: How many of the others the model itself cannot tell from its next best class, within
            the tolerance.
        difference: The largest of any logit.
        allowed: What it may be.
        right: The file's share of right answers, where the classes are known.
    """

    pictures: int
    same: int
    ties: int
    difference: float
    allowed: float
    right: float | None

    def __str__(self) -> str:
        return (
            f"{self.same:,} get the model's class ({self.ties} of the others are ties), logits "
            f"differ by at most {self.difference:.2g} ({self.allowed:.2g} is allowed: "
            f"{TOLERANCE:g} of the largest)"
        )

    def require(self, what: str) -> None:
        """Refuse a file that does not agree.

        Raises:
            FasttrainError: it answers otherwise than the model.
        """
        others = self.pictures - self.same - self.ties
        if not self.difference <= self.allowed or others:  # not a number: refused as well
            raise FasttrainError(
                f"{what} does not agree with the model: of {self.pictures:,} pictures {others:,} "
                f"get another class, logits differ by up to {self.difference:.3g} "
                f"({self.allowed:.3g} is allowed); nothing was written"
            )


@torch.no_grad()
def compare(
    model: Classifier,
    file: Answering,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
) -> Agreement:
    """Show both the same (N, H, W, 3) pictures, whose classes are `labels` where they are known."""
    expected, found = [], []
    for some in _batches(torch.from_numpy(images)):
        expected.append(model(some))
        logits, probabilities = file(some)
        # A wrong softmax counts as wrong logits.
        wrong = (probabilities - torch.softmax(logits, dim=1)).abs().max() > TOLERANCE
        found.append(torch.full_like(logits, torch.nan) if wrong else logits)
    wanted, got = torch.cat(expected), torch.cat(found)
    allowed = TOLERANCE * max(1.0, float(wanted.abs().max()))
    best = got.argmax(dim=1)
    same = best == wanted.argmax(dim=1)
    gap = wanted.amax(dim=1) - wanted.gather(1, best[:, None])[:, 0]
    right = None if labels is None else float((best.numpy() == labels).mean())
    return Agreement(
        pictures=len(images),
        same=int(same.sum()),
        ties=int((~same & (gap <= 2 * allowed)).sum()),
        difference=float((wanted - got).abs().max()),
        allowed=allowed,
        right=right,
    )


def _batches(images: Tensor) -> Iterator[Tensor]:
    yield images[:1]
    for first in range(1, len(images), _BATCH):
        yield images[first : first + _BATCH]
