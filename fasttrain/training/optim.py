"""Optimisers."""

from __future__ import annotations

import torch
from torch import nn

from fasttrain.config import Optim


def build(optim: Optim, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser that `optim` describes, with torch's fused kernel."""
    return torch.optim.SGD(
        model.parameters(),
        lr=optim.lr,
        momentum=optim.momentum,
        nesterov=optim.nesterov,
        weight_decay=optim.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
