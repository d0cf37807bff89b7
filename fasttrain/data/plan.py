"""The batch plan: which pictures a batch holds and how each is changed, from `(seed, step)` alone.

Every random number of the data path is drawn here, from a counter-based generator keyed by the
seed, the name of what is drawn, and the epoch (`randomness`). There is no generator state: any
batch of any epoch can be computed at any time, on any rank, by any loader. `draws` says what the
random words mean.

Shapes: B is the global batch, N the number of pictures, W the number of ranks.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttrain.config import Augmentation, Flip
from fasttrain.data import draws
from fasttrain.data.randomness import Ints, permutation, random_integers, random_words

Array = NDArray[Any]

_KEPT = 5  # epochs: a GPU has up to two more planned, and the journal looks back at one or two
# Parts of the fingerprint: raise one when the same settings give other batches.
_PLAN_VERSION = 1
_DRAW_VERSIONS = {"resized_crop": 2}  # of one augmentation alone


@dataclass(frozen=True)
class Shard:
    """Which part of every global batch a rank executes: slice `rank` of `world` equal ones."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} is not one of {self.world}")

    def share(self, batch_size: int) -> int:
        """How many rows of a batch the rank has."""
        if batch_size % self.world:
            raise ValueError(f"a batch of {batch_size} has no {self.world} equal slices")
        return batch_size // self.world


@dataclass(frozen=True)
class Batch:
    """One batch, or a rank's slice of it: what to load and how to change it.

    Attributes:
        indices: (B,) positions of the pictures in the store's split.
        draws: How each picture is changed, by name; the first axis is B (see `draws`).
        valid: How many of the first rows count; the rest pad an evaluation batch to full size.
    """

    indices: Ints
    draws: Mapping[str, Array]
    valid: int


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
        share = shard.share(self.batch_size)
        epoch, within = divmod(step, self.steps_per_epoch)
        first = within * self.batch_size + shard.rank * share
        valid = min(max(self.epoch(epoch).valid - first, 0), share)
        return epoch, slice(first, first + share), valid

    def batch(self, step: int, shard: Shard = Shard()) -> Batch:
        """Return this rank's slice of batch `step`, counted over the whole run; views only."""
        epoch, rows, valid = self.locate(step, shard)
        whole = self.epoch(epoch)
        drawn = {name: values[rows] for name, values in whole.draws.items()}
        return Batch(whole.indices[rows], drawn, valid)

    def digest(self, first: int, last: int) -> str:
        """A short hash of what is in batches `first` up to but not including `last`."""
        digest = hashlib.blake2b(digest_size=8)
        for step in range(first, last):
            batch = self.batch(step)
            for values in (batch.indices, *(batch.draws[name] for name in sorted(batch.draws))):
                digest.update(values.tobytes())
        return digest.hexdigest()


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
        """The whole epoch as one long batch; the last few are kept.

        Any thread may ask: one plans an epoch ahead while another looks back at the last one.
        """
        found = self._kept.get(epoch)
        if found is None:
            found = self._kept[epoch] = self._plan_epoch(epoch)
            for old in list(self._kept)[:-_KEPT]:
                self._kept.pop(old, None)
        return found

    def _plan_epoch(self, epoch: int) -> Batch:
        order = permutation(self.seed, "order", epoch, len(self.pictures))
        indices = self.pictures[order[: self.steps_per_epoch * self.batch_size]]
        drawn = {str(entry.name): self._draw(entry, epoch, indices) for entry in self.augment}
        combined = draws.combine(self.augment, drawn, self.size)
        return Batch(indices, combined, len(indices))

    def _draw(self, entry: Augmentation, epoch: int, indices: Ints) -> Array:
        """The parameters of one augmentation for every row of an epoch."""
        if isinstance(entry, Flip) and entry.mode == "alternating":
            # A first side for each picture of the store, whatever its place in the epoch.
            sides = random_words(self.seed, entry.name, 0, int(self.pictures.max()) + 1)
            return random_integers(sides, 2)[indices] ^ np.int32(epoch % 2)
        each = draws.WORDS[entry.name]
        words = random_words(self.seed, entry.name, epoch, each * len(indices))
        return draws.parameters(entry, words.reshape(len(indices), each), self.size)

    def fingerprint(self) -> str:
        """A short hash of all that decides the batches; equal fingerprints, equal batches."""
        settings = [_PLAN_VERSION, self.batch_size, self.seed, self.size]
        settings += [entry.model_dump_json() for entry in self.augment]
        settings += [_DRAW_VERSIONS[e.name] for e in self.augment if e.name in _DRAW_VERSIONS]
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
        self._pass = Batch(indices, {}, len(pictures))

    def epoch(self, epoch: int) -> Batch:  # noqa: ARG002 - every pass is the same
        """The whole pass as one long batch, padded."""
        return self._pass
