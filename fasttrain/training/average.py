"""The exponential moving average of a model's weights (Polyak and Juditsky, 1992, in the form of
Tarvainen and Valpola, "Mean teachers", arXiv 1703.01780, section 2).
"""  # noqa: D205

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fasttrain.config import Ema


class Average:
    """A second model that follows the trained one.

    Floating-point buffers, such as the statistics of batch norm, are averaged like weights:
    each is the statistic of a model near the one that trained at that step. Others, such as
    counters, are copied.

    Args:
        model: The trained model, neither compiled nor joined over the ranks.
        ema: How fast the average follows.

    Attributes:
        model: The averaged model.
    """

    def __init__(self, model: nn.Module, ema: Ema) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._ema = ema
        self._sources, self._counters = _split(model)
        self._averages, self._copies = _split(self.model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model after step number `step`, counted from 0."""
        torch._foreach_lerp_(self._averages, self._sources, 1 - decay_at(self._ema, step))
        if self._copies:
            torch._foreach_copy_(self._copies, self._counters)


def decay_at(ema: Ema, step: int) -> float:
    """The share of the old average that stays at step number `step`, counted from 0."""
    return min(ema.decay, (1 + step) / (10 + step)) if ema.warmup else ema.decay


def _split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """All parameters and buffers: what can be averaged, and what cannot."""
    every: list[Tensor] = [*model.parameters(), *model.buffers()]
    floating = [tensor for tensor in every if tensor.is_floating_point()]
    return floating, [tensor for tensor in every if not tensor.is_floating_point()]
