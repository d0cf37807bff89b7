"""What a model answered to every picture of a split, and the figures that follow from it."""

from __future__ import annotations

import io
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fasttrain.errors import UserError
from fasttrain.files import write_bytes

_NORMAL_95 = 1.959964  # the normal distribution's quantile at 97.5 %
_READ_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    BadZipFile,
    zlib.error,
    RuntimeError,  # damaged so that it looks encrypted, or compressed in another way
)
BINS = 15  # of a reliability diagram


@dataclass(frozen=True)
class Answers:
    """The answers to N pictures, in the order of the split.

    Attributes:
        label: (N,) int64, the right classes.
        predicted: (N,) int64, the likeliest classes.
        confidence: (N,) float32, the probability of the likeliest class, 0 to 1.
        rank: (N,) int64, how many classes were held likelier than the right one.
        loss: (N,) float32, cross-entropy in nats, without label smoothing.
    """

    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    rank: NDArray[np.int64]
    loss: NDArray[np.float32]

    @property
    def count(self) -> int:
        """N."""
        return len(self.label)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,): whether the likeliest class is the right one."""
        return np.equal(self.predicted, self.label)

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return float(self.right.mean())

    @property
    def mean_loss(self) -> float:
        """Mean cross-entropy, in nats."""
        return float(self.loss.mean(dtype=np.float64))

    def top(self, k: int) -> float:
        """Share of pictures whose class is among the `k` likeliest, 0 to 1."""
        return float((self.rank < k).mean())

    def confusion(self, classes: int) -> NDArray[np.int64]:
        """(classes, classes): pictures by right class (row) and answer (column)."""
        pairs = self.label * classes + self.predicted
        return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def per_class(self, classes: int) -> list[float | None]:
        """The accuracy within each class; `None` for one without pictures."""
        of = np.bincount(self.label, minlength=classes)
        right = np.bincount(self.label[self.right], minlength=classes)
        return [float(r / n) if n else None for r, n in zip(right, of, strict=True)]

    def reliability(self) -> NDArray[np.float64]:
        """(BINS, 3): pictures, mean confidence and accuracy, by equal steps of the confidence.

        An empty bin has zeros.
        """
        at = np.clip((self.confidence * BINS).astype(int), 0, BINS - 1)
        counts = np.bincount(at, minlength=BINS).astype(float)
        sums = [
            np.bincount(at, weights=values, minlength=BINS)
            for values in (self.confidence, self.right)
        ]
        means = [np.divide(one, counts, out=np.zeros(BINS), where=counts > 0) for one in sums]
        return np.stack([counts, *means], axis=1)

    def calibration_error(self) -> float:
        """Expected calibration error, 0 to 1: how far confidence is from accuracy.

        Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 2, with
        15 bins.
        """
        counts, confidence, accuracy = self.reliability().T
        return float((counts * abs(confidence - accuracy)).sum() / counts.sum())

    def mistakes(self, most: int) -> NDArray[np.intp]:
        """Positions of the wrong answers that were given with the highest confidence."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:most]

    def save(self, path: Path) -> None:
        """Write them as an `.npz` file, atomically; errors as `files.write_bytes`."""
        content = io.BytesIO()
        np.savez_compressed(content, **asdict(self))
        write_bytes(path, content.getvalue())


def load(path: Path) -> Answers:
    """Read what `Answers.save` wrote; nothing in it is unpickled.

    Raises:
        UserError: the file cannot be read, or is not one of those.
    """
    try:
        with np.load(path, allow_pickle=False) as columns:
            return Answers(**{field.name: columns[field.name] for field in fields(Answers)})
    except _READ_ERRORS as error:
        raise UserError(f"{path}: not whole: {error}; delete it") from error


def interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share of `count`: Wilson's score interval.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    square = _NORMAL_95**2 / count
    middle = share + square / 2
    half = _NORMAL_95 * (share * (1 - share) / count + square / (4 * count)) ** 0.5
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    return max(low, 0.0), min(high, 1.0)  # rounding may carry them a little beyond
