"""What a data set is like, as far as a network needs to know it."""

from __future__ import annotations

from dataclasses import dataclass

from fasttrain.config import Data
from fasttrain.data import cifar, shapes
from fasttrain.data.sources import open_dataset
from fasttrain.data.store import Progress, silent

_CIFAR_TRAINING = 50_000


@dataclass(frozen=True)
class Outline:
    """A data set's measures.

    Attributes:
        size: Height and width of a picture.
        classes: How many there are.
        pictures: How many there are in the training split, the validation's included.
    """

    size: tuple[int, int]
    classes: int
    pictures: int


def outline(data: Data, progress: Progress = silent) -> Outline:
    """Say what `data` is like; nothing is read or downloaded where its name says it all.

    A CIFAR set counts as the whole one, though what lies there may be a part of it.

    Raises:
        UserError: a folder of pictures cannot be used.
    """
    if data.dataset in cifar.CLASSES:
        return Outline(cifar.SIZE, len(cifar.CLASSES[data.dataset]), _CIFAR_TRAINING)
    if data.dataset == "shapes":
        source = shapes.ShapesSource()
        return Outline((shapes.SIZE, shapes.SIZE), len(shapes.CLASSES), source.train)
    store = open_dataset(data, progress)
    return Outline(store.size, len(store.classes), len(store.train.labels))
