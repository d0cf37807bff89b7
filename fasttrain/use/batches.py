"""The batches of a run, for a training loop of one's own.

Shapes: B pictures of H x W pixels, a rank's slice of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from fasttrain.config import Config
from fasttrain.data import sources
from fasttrain.data.facts import Facts
from fasttrain.data.loader import Pictures
from fasttrain.errors import UserError
from fasttrain.training import parts

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Rank:
    """Where batches are delivered: a device, and which slice of each.

    Attributes:
        device: Where the pictures shall lie.
        rank: This process among `world` ones.
        world: How many processes share every batch.
        compile: Whether the loader's own work is compiled, which takes some seconds and pays in a
            long run.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    compile: bool = False


class Batches:
    """The batches that a run of `config` sees, on the device, in its order.

    Iterating goes over all epochs of `train`, or once over `validation` or `test`; as often as one
    likes, one pass after the other, and always with the same batches. Use it in a `with` block, or
    call `close`.

    Each batch is a `Pictures`: `images` (B, 3, H, W) float32 in channels-last memory, augmented and
    normalised; `labels` (B,) int64; `valid`, how many of the first rows count (others pad the last
    batch of `validation` and `test`); `mixing`, None unless `data.augment` has mixup or cutmix,
    whose pairs `fasttrain.data.mixing` mixes. `train.resize` is left to the caller.

    Args:
        config: The run.
        part: Which pictures.
        place: Where.

    Attributes:
        facts: What the data set is like: class names, size, mean, deviation.
        steps_per_epoch: Batches in one epoch, or in one pass.

    Raises:
        UserError: the data cannot be found or used, or the batch not be shared by the ranks.
    """

    def __init__(self, config: Config, part: Part, place: Rank) -> None:
        parts.check_world(config, place.world)
        store = sources.open_dataset(config.data)
        self.facts = Facts.of(store)
        self._epochs, self._repeats = 1, part != "train"
        if part == "train":
            plan = parts.training_plan(config, store)
            self._loader, _ = parts.training_loader(config, store, plan, place)
            self.steps_per_epoch, self._epochs = plan.steps_per_epoch, config.train.epochs
            return
        split = store.test if part == "test" else parts.validation_split(config, store)
        if not len(split.labels):
            raise UserError("data.validation=0 holds no pictures out; set it, or choose 'test'")
        evaluation = parts.evaluation_pass(config, store, split, place)
        self._loader, self.steps_per_epoch = evaluation.loader, evaluation.plan.steps_per_epoch

    def __len__(self) -> int:
        """All batches, of all epochs."""
        return self._epochs * self.steps_per_epoch

    def __iter__(self) -> Iterator[Pictures]:
        return self._loader.batches(0, len(self))

    def epoch(self, number: int) -> Iterator[Pictures]:
        """The batches of one epoch, counted from 0; it may lie behind the run's last."""
        first = 0 if self._repeats else number * self.steps_per_epoch
        return self._loader.batches(first, first + self.steps_per_epoch)

    def close(self) -> None:
        """End the loader's threads and processes."""
        self._loader.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
