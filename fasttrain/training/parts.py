"""The parts of a run, built from its configuration: what training and evaluation share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fasttrain import models
from fasttrain.config import Config, Crop, Train, WhitenedCnnModel
from fasttrain.config.augment import mixes
from fasttrain.data.augment import Transform
from fasttrain.data.loader import Loader, choose, make_loader
from fasttrain.data.plan import EvaluationPlan, Shard, TrainingPlan, holdout
from fasttrain.data.randomness import Ints
from fasttrain.data.store import Split, Store, let_go
from fasttrain.errors import UserError
from fasttrain.runtime import Runtime
from fasttrain.training import schedule
from fasttrain.training.evaluate import Evaluation
from fasttrain.training.resizing import Resizer

# Pictures of 32 x 32 that an evaluation takes at once, or as many pixels in fewer: enough for a
# GPU, and little of a CPU's memory.
_EVALUATION_BATCH = {"cuda": 2500, "cpu": 250}
_PICTURES_PER_CORE = 125  # of a part of a training step: fewer bring little memory, and are slower
_LOOKED_AT = 5000  # pictures by which a network may set its first layer
_LOOKED_AT_ONCE = {"cuda": 1000, "cpu": 250}  # of those: patches of 250 take up to 100 MB


class Place(Protocol):
    """Where batches are delivered: a `Runtime` is one."""

    @property
    def device(self) -> torch.device:
        """The device of this rank."""

    @property
    def rank(self) -> int:
        """This process among `world` ones."""

    @property
    def world(self) -> int:
        """How many processes share every batch."""

    @property
    def compile(self) -> bool:
        """Whether a loader's work is compiled."""


def check(config: Config) -> None:
    """Refuse what no machine can run, before any device is touched.

    Raises:
        UserError: the schedule does not fit the run, or the batch its parts.
    """
    schedule.check(config.schedule, config.train.epochs)
    check_world(config, world=1)


def check_world(config: Config, world: int) -> None:
    """Refuse a batch that the ranks, and the parts of a step, cannot share equally.

    Raises:
        UserError: it cannot be cut into equal slices, or not into slices of whole pairs, whole
            ghost batches, or several pictures where the network normalises over them.
    """
    size, parts = config.data.batch_size, config.train.accumulate
    parts = 1 if parts == "auto" else parts
    piece, ghost_batch = size // (world * parts), _ghost_batch(config)
    gives = f"data.batch_size={size} gives each of {world} processes and {parts} parts"
    if size % world:
        raise UserError(
            f"data.batch_size={size} cannot be divided among {world} processes; "
            f"choose a multiple of {world}"
        )
    if size % (world * parts):
        raise UserError(
            f"train.accumulate={parts} does not divide the {size // world} pictures of a "
            "process's share of data.batch_size; choose a divisor"
        )
    if mixes(config.data.augment) and piece % 2:
        raise UserError(
            f"{gives} an odd number of pictures, and mixup and cutmix mix them in pairs; "
            f"choose a multiple of {2 * world * parts}"
        )
    if isinstance(config.model, WhitenedCnnModel) and piece == 1:
        raise UserError(
            f"{gives} one picture, and model.family=whitened_cnn normalises over several; "
            f"choose {2 * world * parts} or more"
        )
    if ghost_batch is not None and piece > ghost_batch and piece % ghost_batch:
        raise UserError(
            f"model.ghost_batch={ghost_batch} does not divide the {piece} pictures that a process "
            "takes at a time; choose an even divisor"
        )


def in_parts(config: Config, place: Place) -> Train:
    """The settings of a training step, with `accumulate` a number.

    `auto` is one part, but on a CPU the fewest that hold whole ghost batches and no more than
    `_PICTURES_PER_CORE` allows, or one ghost batch.
    """
    if config.train.accumulate != "auto":
        return config.train
    ghost_batch, count = _ghost_batch(config), 1
    if ghost_batch is not None and place.device.type == "cpu":
        ghosts = max(config.data.batch_size // place.world // ghost_batch, 1)
        at_once = max(_PICTURES_PER_CORE * torch.get_num_threads() // ghost_batch, 1)
        divisors = (parts for parts in range(1, ghosts + 1) if ghosts % parts == 0)
        count = next(parts for parts in divisors if ghosts // parts <= at_once)
    return config.train.model_copy(update={"accumulate": count})


def _ghost_batch(config: Config) -> int | None:
    return config.model.ghost_batch if isinstance(config.model, WhitenedCnnModel) else None


def count_training(config: Config, count: int) -> int:
    """How many of `count` training pictures are left when the validation split is held out.

    Raises:
        UserError: too few for one batch.
    """
    held_out = config.data.validation
    left = count - held_out
    if left < 1:
        raise UserError(
            f"data.validation={held_out} leaves nothing of the {count} training pictures; "
            "choose a smaller number, or 0"
        )
    if config.data.batch_size > left:
        raise UserError(
            f"data.batch_size={config.data.batch_size} is more than the {left} training pictures "
            f"({count} less {held_out} for validation); choose a smaller one"
        )
    return left


def split_training(config: Config, store: Store) -> tuple[Ints, Ints]:
    """Return the positions of the training and of the validation pictures.

    Raises:
        UserError: the training set is too small for the validation split or for one batch.
    """
    count = len(store.train.labels)
    return holdout(count, count - count_training(config, count))


def training_plan(config: Config, store: Store) -> TrainingPlan:
    """The batches of a run; errors as `split_training`, or a margin too wide to be mirrored."""
    pictures, _ = split_training(config, store)
    data = config.data
    for entry in data.augment:
        if isinstance(entry, Crop) and entry.mode == "reflect" and entry.padding >= min(store.size):
            raise UserError(
                f"data.augment: crop mirrors {entry.padding} pixels, but the pictures of "
                f"{store.name} are {store.size[0]} x {store.size[1]}; choose a smaller padding"
            )
    return TrainingPlan(pictures, data.batch_size, config.seed, data.augment, store.size)


def training_loader(
    config: Config, store: Store, plan: TrainingPlan, runtime: Place
) -> tuple[Loader, str]:
    """The loader of the training batches, and why it was chosen."""
    pixels = math.prod(store.train.images.shape[:3])
    name, reason = choose(config.data.loader, runtime.device, pixels)
    transform = Transform(config.data.augment, store.mean, store.std)
    loader = make_loader(
        name,
        store.train,
        plan,
        Shard(runtime.rank, runtime.world),
        transform,
        runtime.device,
        compile=runtime.compile,
        workers=config.data.workers,
    )
    return loader, reason


def validation_split(config: Config, store: Store) -> Split:
    """The held-out part of the training set, which may be empty."""
    _, held_out = split_training(config, store)
    return Split(_copied(store, held_out), store.train.labels[held_out])


def evaluation_pass(config: Config, store: Store, split: Split, runtime: Place) -> Evaluation:
    """One pass over the whole of a split, unchanged and in order."""
    name, _ = choose(config.data.loader, runtime.device, math.prod(split.images.shape[:3]))
    at_once = _at_once(_EVALUATION_BATCH[runtime.device.type], store.size)
    plan = EvaluationPlan(np.arange(len(split.labels)), at_once, runtime.world)
    loader = make_loader(
        name,
        split,
        plan,
        Shard(runtime.rank, runtime.world),
        Transform((), store.mean, store.std),
        runtime.device,
        compile=False,  # a plain gather: compiling it would take longer than it saves
        workers=config.data.workers,
    )
    return Evaluation(loader, plan)


def resizer(config: Config, store: Store, steps_per_epoch: int, runtime: Runtime) -> Resizer:
    """How large pictures are at which step.

    Raises:
        UserError: pooling leaves nothing of the smaller ones.
    """
    train = config.train
    total = train.epochs * steps_per_epoch
    found = Resizer(train.resize, store.size, steps_per_epoch, total, runtime.device)
    found.check(config.model)
    return found


def build_model(config: Config, store: Store, runtime: Runtime) -> nn.Module:
    """The network with the seed's initial weights, on the device, the same on every rank."""
    torch.manual_seed(config.seed)
    model = models.build(config.model, len(store.classes))
    models.look_at(model, _looked_at(config, store, runtime.device))
    model = place_model(config, model, runtime)
    runtime.share_buffers(model)  # what each has seen in the pictures may be rounded differently
    return model


def place_model(config: Config, model: nn.Module, runtime: Runtime) -> nn.Module:
    """Move a network to the device, laid out in memory as configured."""
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    return model.to(runtime.device).to(memory_format=layout)


def evenly(pictures: Ints, count: int) -> Ints:
    """At most `count` of them from all over the set, which may be sorted by class."""
    every = -(-len(pictures) // count)
    return pictures[::every]


def _at_once(count: int, size: tuple[int, int]) -> int:
    """How many pictures of `size` have the pixels of `count` of 32 x 32, and no more of smaller."""
    height, width = size
    return max(min(count, count * 32 * 32 // (height * width)), 1)


def _looked_at(config: Config, store: Store, device: torch.device) -> Iterator[Tensor]:
    """Training pictures as the model sees them, unchanged, (N, 3, H, W) on the device, few each."""
    pictures, _ = split_training(config, store)
    seen = evenly(pictures, _LOOKED_AT)
    few = _at_once(_LOOKED_AT_ONCE[device.type], store.size)
    for start in range(0, len(seen), few):
        images = torch.from_numpy(_copied(store, seen[start : start + few])).to(device)
        yield Transform((), store.mean, store.std).apply(images, {})


def _copied(store: Store, pictures: Ints) -> NDArray[np.uint8]:
    """Training pictures from all over the set, of which nothing else stays in memory."""
    images = store.train.images[pictures]
    let_go(store.train.images)
    return images
