"""The batch plan: which pictures a batch holds and how each is changed, from `(seed, step)` alone.

Every random number of the data path is drawn here, from a counter-based generator (Philox;
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) whose key is the seed and
the name of what is drawn, and whose counter is the epoch. There is no generator state: any batch
of any epoch can be computed at any time, on any rank, by any loader. Only raw 64-bit words are
used, whose stream numpy guarantees, so a plan is the same under every version of numpy.

Shapes: B is the global batch, N the number of pictures, W the number of ranks.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasttrain.config import Augmentation, Crop, Cutout, Flip

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Draws = Mapping[str, NDArray[np.int32]]

_PLAN_VERSION = 1  # part of the fingerprint: raise it when the same settings give other batches


@dataclass(frozen=True)
class Shard:
    """Which part of every global batch a rank executes: slice `rank` of `world` equal ones."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} is not one of {self.world}")


@dataclass(frozen=True)
class Batch:
    """One batch, or a rank's slice of it: what to load and how to change it.

    Attributes:
        step: The global step, counted from 0 over the whole run.
        indices: (B,) positions of the pictures in the store's split.
        draws: For each augmentation by name its parameters, (B,) or (B, 2), int32.
        valid: How many of the first rows count; the rest pad an evaluation batch to full size.
    """

    step: int
    indices: Ints
    draws: Draws
    valid: int


def random_words(seed: int, stream: str, epoch: int, count: int) -> Words:
    """Return `count` random 64-bit words for this seed, named stream and epoch."""
    name = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    generator = np.random.Philox(
        key=np.array([seed, int.from_bytes(name, "little")], dtype=np.uint64),
        counter=np.array([0, 0, 0, epoch], dtype=np.uint64),
    )
    return np.asarray(generator.random_raw(count), dtype=np.uint64)


def random_integers(words: Words, bound: int) -> NDArray[np.int32]:
    """Map words to integers in `[0, bound)` (multiply and shift; bias below `bound / 2**32`)."""
    return ((words >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int32)


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


def holdout(count: int, held_out: int) -> tuple[Ints, Ints]:
    """Split `count` pictures into (training, validation) positions, each in ascending order.

    The choice depends on nothing but the two numbers, so runs with different seeds are validated
    on the same pictures.
    """
    order = permutation(0, "validation", 0, count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


class Plan(ABC):
    """What every plan can do once it can plan a whole epoch.

    Attributes:
        batch_size: B, the global batch over all ranks.
        steps_per_epoch: Batches in one epoch or pass.
    """

    batch_size: int
    steps_per_epoch: int

    @abstractmethod
    def epoch(self, epoch: int) -> Batch:
        """The whole epoch as one long batch of `steps_per_epoch * B` rows, in order."""

    def locate(self, step: int, shard: Shard) -> tuple[int, slice, int]:
        """Where a rank's slice of batch `step` lies.

        Returns the epoch, the rows of `epoch(...)`, and how many of the rows count.
        """
        if self.batch_size % shard.world:
            raise ValueError(f"a batch of {self.batch_size} has no {shard.world} equal slices")
        epoch, within = divmod(step, self.steps_per_epoch)
        share = self.batch_size // shard.world
        first = within * self.batch_size + shard.rank * share
        valid = min(max(self.epoch(epoch).valid - first, 0), share)
        return epoch, slice(first, first + share), valid

    def batch(self, step: int, shard: Shard = Shard()) -> Batch:
        """Return this rank's slice of batch `step`, counted over the whole run; views only."""
        epoch, rows, valid = self.locate(step, shard)
        whole = self.epoch(epoch)
        draws = {name: values[rows] for name, values in whole.draws.items()}
        return Batch(step, whole.indices[rows], draws, valid)


class TrainingPlan(Plan):
    """An endless sequence of full batches: each epoch a new order, the short last batch dropped.

    Args:
        pictures: (N,) positions in the store's split that may be drawn.
        batch_size: B, the global batch over all ranks.
        seed: The run's seed.
        augment: What is done to each picture, in order.
        size: Height and width of a picture, in pixels.
    """

    def __init__(
        self,
        pictures: Ints,
        batch_size: int,
        seed: int,
        augment: Sequence[Augmentation],
        size: tuple[int, int],
    ) -> None:
        if not 1 <= batch_size <= len(pictures):
            raise ValueError(f"a batch of {batch_size} cannot be drawn from {len(pictures)}")
        self.pictures = pictures
        self.batch_size = batch_size
        self.seed = seed
        self.augment = tuple(augment)
        self.size = size
        self.steps_per_epoch = len(pictures) // batch_size
        self._kept: dict[int, Batch] = {}

    def epoch(self, epoch: int) -> Batch:
        """The whole epoch as one long batch; the last two are kept."""
        if epoch not in self._kept:
            for old in list(self._kept)[:-1]:
                del self._kept[old]
            self._kept[epoch] = self._plan_epoch(epoch)
        return self._kept[epoch]

    def _plan_epoch(self, epoch: int) -> Batch:
        order = permutation(self.seed, "order", epoch, len(self.pictures))
        indices = self.pictures[order[: self.steps_per_epoch * self.batch_size]]
        draws = {str(entry.name): self._draw(entry, epoch, indices) for entry in self.augment}
        return Batch(epoch * self.steps_per_epoch, indices, draws, len(indices))

    def _draw(self, entry: Augmentation, epoch: int, indices: Ints) -> NDArray[np.int32]:
        """The parameters of one augmentation for every row of an epoch."""
        count = len(indices)
        match entry:
            case Crop(padding=padding):
                # (rows, 2): top and left edge of the cut, in the padded picture.
                words = random_words(self.seed, "crop", epoch, 2 * count)
                return random_integers(words, 2 * padding + 1).reshape(count, 2)
            case Flip(mode="random"):
                return random_integers(random_words(self.seed, "flip", epoch, count), 2)
            case Flip():
                # A first side for each picture of the store, whatever its place in the epoch.
                sides = random_words(self.seed, "flip", 0, int(self.pictures.max()) + 1)
                return random_integers(sides, 2)[indices] ^ np.int32(epoch % 2)
            case Cutout():
                # (rows, 2): the centre of the square, anywhere in the picture.
                words = random_words(self.seed, "cutout", epoch, 2 * count).reshape(count, 2)
                rows, columns = (
                    random_integers(words[:, axis], self.size[axis]) for axis in (0, 1)
                )
                return np.stack([rows, columns], axis=1)

    def fingerprint(self) -> str:
        """A short hash of all that decides the batches; equal fingerprints, equal batches."""
        settings = [_PLAN_VERSION, self.batch_size, self.seed, self.size]
        settings += [entry.model_dump_json() for entry in self.augment]
        digest = hashlib.sha256(repr(settings).encode())
        digest.update(self.pictures.tobytes())
        return digest.hexdigest()[:16]


class EvaluationPlan(Plan):
    """One pass over `pictures` in order, nothing changed; the last batch is padded to full size.

    The padding repeats the first picture and is told apart by `Batch.valid`. The batch is rounded
    up so that every rank's slice has the same size.
    """

    def __init__(self, pictures: Ints, batch_size: int, world: int = 1) -> None:
        self.pictures = pictures
        self.batch_size = -(-min(batch_size, len(pictures)) // world) * world
        self.steps_per_epoch = -(-len(pictures) // self.batch_size)
        padding = self.steps_per_epoch * self.batch_size - len(pictures)
        indices = np.concatenate([pictures, np.repeat(pictures[:1], padding)])
        self._pass = Batch(0, indices, {}, len(pictures))

    def epoch(self, epoch: int) -> Batch:  # noqa: ARG002 - every pass is the same
        """The whole pass as one long batch, padded."""
        return self._pass
