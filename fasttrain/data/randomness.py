"""Random numbers without a generator's state: pure functions of a seed, a name and an epoch.

The generator is counter-based (Philox; Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011): its key is the seed and the name of what is drawn, its counter the epoch. Only
raw 64-bit words are used, whose stream numpy guarantees, so what is drawn is the same under every
version of numpy. Because each kind of draw has a stream of its own, drawing something more leaves
everything else as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Reals = NDArray[np.float64]

_TABLE = 4097  # knots of a tabulated distribution; the error is below 1e-6


def random_words(seed: int, stream: str, epoch: int, count: int) -> Words:
    """Return `count` random 64-bit words for this seed, named stream and epoch."""
    name = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    generator = np.random.Philox(
        key=np.array([seed, int.from_bytes(name, "little")], dtype=np.uint64),
        counter=np.array([0, 0, 0, epoch], dtype=np.uint64),
    )
    return np.asarray(generator.random_raw(count), dtype=np.uint64)


def random_words_by_name(seed: int, stream: str, names: Sequence[str]) -> Words:
    """Return a random 64-bit word for each name, which depends on seed, stream and it alone.

    A keyed hash (BLAKE2b) draws it, so that it stays as it is when there are more names.
    """
    key = hashlib.blake2b(f"{seed} {stream}".encode(), digest_size=32).digest()
    words = b"".join(
        hashlib.blake2b(name.encode(errors="surrogateescape"), key=key, digest_size=8).digest()
        for name in names
    )
    return np.frombuffer(words, dtype="<u8").astype(np.uint64)


def random_integers(words: Words, bound: int) -> NDArray[np.int32]:
    """Map words to integers in `[0, bound)` (multiply and shift; bias below `bound / 2**32`)."""
    return ((words >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int32)


def random_uniform(words: Words, low: float | Reals = 0.0, high: float | Reals = 1.0) -> Reals:
    """Map words to numbers spread evenly over `[low, high)`, by their upper 53 bits."""
    even: Reals = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return low + (high - low) * even


def random_beta(words: Words, alpha: float) -> Reals:
    """Map words to numbers in `[0, 1]` with the distribution Beta(`alpha`, `alpha`).

    One word gives one number: its distribution function is tabulated and inverted.
    """
    even = random_uniform(words)
    cumulative, lower_half = _beta_table(alpha)
    lower = np.interp(np.minimum(even, 1 - even), cumulative, lower_half) ** (1 / min(alpha, 1))
    return np.where(even < 0.5, lower, 1 - lower)


@lru_cache(maxsize=8)
def _beta_table(alpha: float) -> tuple[Reals, Reals]:
    """The distribution function of Beta(`alpha`, `alpha`) for x up to 1/2, the rest mirrors it.

    It is tabulated over `x ** min(alpha, 1)`, where the density is smooth however steep it is
    over x near 0.
    """
    power = min(alpha, 1)
    positions = np.linspace(0, 0.5**power, _TABLE)
    x = positions ** (1 / power)
    density = x ** (alpha - power) * (1 - x) ** (alpha - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return 0.5 * area / area[-1], positions


def permutation(seed: int, stream: str, epoch: int, count: int) -> Ints:
    """Return a random order of `count` items.

    The low bits of each sort key are the item's own position, so keys are distinct and every
    sorting algorithm gives the same order.
    """
    position_bits = np.uint64((1 << max(count - 1, 1).bit_length()) - 1)
    keys = random_words(seed, stream, epoch, count)
    keys = (keys & ~position_bits) | np.arange(count, dtype=np.uint64)
    keys.sort()
    return (keys & position_bits).astype(np.int64)
