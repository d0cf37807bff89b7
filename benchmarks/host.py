"""What `airbench94_muon.py` needs to train on a CPU: other numbers, another clock, nothing else.

The script of KellerJordan/cifar10-airbench is imported, not copied; its parts are replaced by
subclasses of themselves and torch's GPU calls by the host's while it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

from fasttrain.errors import UserError

WARM_UP = "warmup"  # what the script calls a run for nothing
SHORT = 2000  # pictures of such a run: a batch of the script's, so that its eight epochs are steps


class Stopwatch:
    """`torch.cuda.Event` by the host's clock: a CPU has done its work when a call returns."""

    def __init__(self, enable_timing: bool = False) -> None:
        del enable_timing
        self._at = 0.0

    def record(self) -> None:
        """Note the time."""
        self._at = time.perf_counter()

    def elapsed_time(self, end: Stopwatch) -> float:
        """Milliseconds from here to `end`."""
        return 1e3 * (end._at - self._at)


def prepare(script: ModuleType) -> Callable[[int | str], None]:
    """Build and compile the script's network; what trains it once.

    Raises:
        UserError: the script needs a GPU.
    """
    if not hasattr(script, "zeropower_via_newtonschulz5"):
        raise UserError(f"{script.__file__} trains on a GPU only, and torch sees none")
    network = _in_bfloat16(script)().float().to(memory_format=torch.channels_last)
    network.compile()

    def train(run: int | str) -> None:
        with _on_the_host(script, short=run == WARM_UP):
            script.main(run, network)

    return train


def _in_bfloat16(script: ModuleType) -> type[torch.nn.Module]:
    """The script's network, whose layers work in bfloat16 where they would in halves."""
    plain: type[torch.nn.Module] = script.CifarNet

    class Network(plain):  # type: ignore[misc, valid-type]
        def forward(self, *pictures: Any, **how: Any) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                logits: torch.Tensor = super().forward(*pictures, **how)
            return logits.float()

    return Network


def _with_floats(script: ModuleType, short: bool) -> type:
    """The script's loader, whose pictures are floats; `short` is one of as many as a batch."""

    class Loader(script.CifarLoader):  # type: ignore[misc, name-defined]
        images: torch.Tensor
        labels: torch.Tensor

        def __init__(self, *words: Any, **named: Any) -> None:
            super().__init__(*words, **named)
            shown = slice(SHORT if short else None)
            self.images, self.labels = self.images[shown].float(), self.labels[shown]

    return Loader


@contextmanager
def _on_the_host(script: ModuleType, short: bool) -> Iterator[None]:
    """Let the script find its pictures and its clock on the host."""
    load = torch.load

    def load_here(path: str, **_: object) -> object:
        return load(path, map_location="cpu")

    with ExitStack() as replaced:
        for owner, name, stand_in in (
            (torch, "load", load_here),
            (torch.cuda, "Event", Stopwatch),
            (torch.cuda, "synchronize", lambda: None),
            (script, "CifarLoader", _with_floats(script, short)),
        ):
            replaced.enter_context(patch.object(owner, name, stand_in))
        yield
