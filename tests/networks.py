"""A small network for tests of what trains it."""

from __future__ import annotations

import torch
from torch import nn

from fasttrain import models
from fasttrain.config import Config


def small_network(norm: str = "none", seed: int = 0, widths: tuple[int, int] = (4, 6)) -> nn.Module:
    """Two stages and a head: (B, 3, 8, 8) to (B, 5); the same for the same seed."""
    torch.manual_seed(seed)
    config = Config.model_validate({"model": {"family": "cnn", "widths": widths, "norm": norm}})
    return models.build(config.model, 5).to(memory_format=torch.channels_last)


def ghost_network(ghost_batch: int | None) -> nn.Module:
    """A whitened network, (B, 3, 8, 8) to (B, 5), whose batch norm goes by ghost batches."""
    torch.manual_seed(0)
    settings = {"family": "whitened_cnn", "widths": [8, 8], "ghost_batch": ghost_batch}
    config = Config.model_validate({"model": settings})
    return models.build(config.model, 5).to(memory_format=torch.channels_last)
