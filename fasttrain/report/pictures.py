"""Pictures that lie in a page: the mistakes a model is surest of, and what it trains on."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fasttrain.answers import Answers
from fasttrain.data.store import Split

_MISTAKES = 24


@dataclass(frozen=True)
class Mistake:
    """A picture that was taken for another class.

    Attributes:
        source: The picture as a `data:` address.
        position: Where it stands in the split.
        label: Its class.
        answer: The class it was taken for.
        confidence: ... and how surely, 0 to 1.
    """

    source: str
    position: int
    label: str
    answer: str
    confidence: float


def mistakes(found: Answers, split: Split, classes: tuple[str, ...]) -> list[Mistake]:
    """The wrong answers that were given with the highest confidence."""
    return [
        Mistake(
            address(split.images[at]),
            int(at),
            classes[found.label[at]],
            classes[found.predicted[at]],
            float(found.confidence[at]),
        )
        for at in found.mistakes(_MISTAKES)
    ]


def address(pixels: NDArray[np.uint8]) -> str:
    """(H, W, 3) uint8 as a `data:` address of a PNG."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, "PNG", optimize=True)
    return png(content.getvalue())


def png(content: bytes) -> str:
    """A PNG file's content as a `data:` address."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
