"""What must be known of a data set to use a model that was trained on it, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fasttrain.data.store import Store

Colour = tuple[float, float, float]  # by channel: red, green, blue


@dataclass(frozen=True)
class Facts:
    """A data set's names and measures.

    Attributes:
        name: The data set's name.
        classes: The class names; a label is a position in this tuple.
        size: Height and width of every picture, in pixels.
        mean: Mean of each channel over the training split, 0 to 255.
        std: Standard deviation of each channel over the training split, 0 to 255.
        digest: A short hash of the pictures, as `Store.digest`.
    """

    name: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    mean: Colour
    std: Colour
    digest: str

    @classmethod
    def of(cls, store: Store) -> Facts:
        """The facts of a prepared data set."""
        return cls(store.name, store.classes, store.size, store.mean, store.std, store.digest)

    @classmethod
    def read(cls, tree: Mapping[str, Any]) -> Facts:
        """What `write` gave, after any way through JSON.

        Raises:
            KeyError: something is missing.
            ValueError: something cannot be what it should.
            TypeError: likewise.
        """
        height, width = (int(side) for side in tree["size"])
        return cls(
            str(tree["name"]),
            tuple(map(str, tree["classes"])),
            (height, width),
            _colour(tree["mean"]),
            _colour(tree["std"]),
            str(tree["digest"]),
        )

    def write(self) -> dict[str, Any]:
        """As JSON has it; numbers keep every bit."""
        return asdict(self)


def _colour(values: Any) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
