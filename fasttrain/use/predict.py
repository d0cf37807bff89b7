"""Classes for pictures: decoded in parallel, scored in batches, in the order they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fasttrain.data.pictures import decode
from fasttrain.errors import UserError
from fasttrain.launcher import usable_cores
from fasttrain.use.classifier import Classifier
from fasttrain.use.inputs import Input

Decoded = tuple[str, NDArray[np.uint8]]  # a picture's name and pixels


@dataclass(frozen=True)
class Prediction:
    """What a model says of a picture.

    Attributes:
        name: The picture's.
        top: The likeliest classes, best first: label, class name, probability from 0 to 1.
    """

    name: str
    top: tuple[tuple[int, str, float], ...]

    def as_json(self) -> dict[str, Any]:
        """One object: the path, the best class, and all of `top`."""
        top = [
            {"class": name, "label": label, "confidence": share} for label, name, share in self.top
        ]
        return {"path": self.name, **top[0], "top": top}


def predict(
    model: Classifier,
    inputs: Iterable[Input | UserError],
    batch_size: int = 64,
    threads: int | None = None,
    top: int = 5,
) -> Iterator[list[Prediction | UserError]]:
    """Predict pictures of any size and kind (see `data.pictures` for what is done to them).

    Args:
        model: On the device where it shall run.
        inputs: The pictures, or why there is none.
        batch_size: Pictures that are scored at once.
        threads: How many pictures are decoded at once; by default one for each core.
        top: How many classes are given for each picture; at most as many as there are.

    Yields:
        A batch at a time and in order: a prediction, or why there is none, which names the picture.
    """
    size = model.size

    def read(item: Input | UserError) -> Decoded | UserError:
        if isinstance(item, UserError):
            return item
        try:
            return item.name, decode(item.read(), item.name, size)
        except UserError as error:
            return error

    pool = ThreadPoolExecutor(threads or usable_cores(), thread_name_prefix="decode")
    try:
        # Twice a batch: the next one is decoded while one is scored.
        found = _ahead(pool, read, inputs, 2 * batch_size)
        while batch := [item for _, item in zip(range(batch_size), found, strict=False)]:
            yield _score(model, batch, min(top, len(model.classes)))
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor,
    read: Callable[[Input | UserError], Decoded | UserError],
    inputs: Iterable[Input | UserError],
    count: int,
) -> Iterator[Decoded | UserError]:
    """Read in order, at most `count` pictures ahead of what is asked for."""
    pending: deque[Future[Decoded | UserError]] = deque()
    for item in inputs:
        pending.append(pool.submit(read, item))
        if len(pending) > count:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def place(model: Classifier) -> Classifier:
    """Bring a model to the GPU where there is one."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def _score(
    model: Classifier, batch: list[Decoded | UserError], top: int
) -> list[Prediction | UserError]:
    pixels = [item[1] for item in batch if not isinstance(item, UserError)]
    if not pixels:
        return [item for item in batch if isinstance(item, UserError)]
    device = next(model.parameters()).device
    shares = model.probabilities(torch.from_numpy(np.stack(pixels)).to(device)).topk(top)
    rows = zip(shares.indices.tolist(), shares.values.tolist(), strict=True)
    return [
        item if isinstance(item, UserError) else _prediction(model, item[0], *next(rows))
        for item in batch
    ]


def _prediction(model: Classifier, name: str, labels: list[int], shares: list[float]) -> Prediction:
    top = zip(labels, shares, strict=True)
    return Prediction(name, tuple((label, model.classes[label], share) for label, share in top))
