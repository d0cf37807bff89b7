"""A speedrun that leaves clock and evaluation to others: `e1.py` of cifar-10-speedrun.

The script has two hooks: `setup()` builds, compiles and records when it is first called, and from
then on begins a run anew; `train(model, extra, ctx)` trains. Its authors time both hooks and leave
out their six views of the test pictures. Here the clock of cifar10-airbench holds for all, so the
views count, too; what the authors' clock would show stands beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fasttrain.training.views import look

_BATCH = 2000  # pictures that are looked at together


class _Silent:
    """What the script tells its validation figures; nobody wants them on the way."""

    def validate(self, *_: object, **__: object) -> None:
        pass


def fits(script: ModuleType) -> bool:
    """Whether a script is one of this kind."""
    return all(hasattr(script, name) for name in ("setup", "train", "CifarLoader", "_CACHE"))


def prepare(script: Any, folder: Path) -> Callable[[int | str], dict[str, float]]:
    """Build and compile; what trains once, and says how well and in which time.

    Args:
        script: The speedrun.
        folder: Where `train.pt` and `test.pt` lie.
    """
    script.DATA_PATH = str(folder)
    script.setup()
    test = script.CifarLoader(str(folder), train=False)
    images, labels = test.normalize(test.images), test.labels

    def train(_: int | str) -> dict[str, float]:
        script._CACHE["train_loader"].epoch = 0  # of which it flips every other one
        start = _now()
        model, extra = script.setup()
        script.train(model, extra, _Silent())
        trained = _now()
        accuracy = _accuracy(model, images, labels)
        return {"accuracy": accuracy, "seconds": _now() - start, "own_seconds": trained - start}

    return train


def _now() -> float:
    """The time when the GPU has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.no_grad()
def _accuracy(model: Any, images: Tensor, labels: Tensor) -> float:
    """The share of right answers, by six views as in cifar10-airbench."""

    def logits(views: Tensor) -> Tensor:
        found: Tensor = model.eval_forward(views).float()
        return found

    model.eval()
    parts = torch.split(images, _BATCH)
    answers = torch.cat([look(logits, part, "shift").argmax(1) for part in parts])
    model.train()  # as the hooks leave it
    return float((answers == labels).double().mean())
