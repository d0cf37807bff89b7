"""Work on a GPU that is recorded once and handed over as one piece (CUDA graphs).

To hand a step over kernel by kernel takes the host some milliseconds, in which a GPU does the
whole step of a shallow network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch

from fasttrain.data.loader import Pictures

T = TypeVar("T")


class Recorded(Generic[T]):
    """Work on pictures at one place in memory, recorded; nothing of it is done by that.

    Everything it touches has to stay where it is: weights, what an optimiser remembers, rates.
    Random numbers are drawn anew each time, from the seed that torch's generator then has.

    Args:
        work: Has been done before, so that no code is generated and no kernel chosen any more. What
            it returns is overwritten each time.
        pictures: Their place, which recordings may share.
        pool: A handle of memory that recordings share, of which only one is ever being replayed.

    Raises:
        torch.OutOfMemoryError: the GPU's memory does not suffice.
    """

    def __init__(self, work: Callable[[Pictures], T], pictures: Pictures, pool: Any) -> None:
        self._pictures = pictures
        self._graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        try:
            # Other threads, such as DALI's, may go on.
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._found = work(pictures)
        except torch.AcceleratorError as error:  # as the driver says it
            if "out of memory" in str(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        finally:
            torch.cuda.set_stream(before)  # torch 2.11 leaves its own where a recording has failed

    def __call__(self, pictures: Pictures) -> T:
        """Do the work on `pictures`; the host does not wait for it."""
        self._pictures.images.copy_(pictures.images, non_blocking=True)
        self._pictures.labels.copy_(pictures.labels, non_blocking=True)
        if pictures.mixing is not None and self._pictures.mixing is not None:
            self._pictures.mixing.copy_(pictures.mixing, non_blocking=True)
        self._graph.replay()
        return self._found


def place_of(example: Pictures) -> Pictures:
    """Memory of its own for pictures like these."""
    mixing = None if example.mixing is None else example.mixing.clone()
    return replace(
        example, images=example.images.clone(), labels=example.labels.clone(), mixing=mixing
    )
