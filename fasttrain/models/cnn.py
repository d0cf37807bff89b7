"""A plain convolutional network: the baseline.

Shapes: B pictures, C channels, H x W pixels; every stage halves H and W.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.config import CnnModel
from fasttrain.models.blocks import norm
from fasttrain.models.pooling import max_pool_2x2


class CNN(nn.Module):
    """Convolution, norm, 2x2 max pooling and ReLU for each width, then a linear layer.

    The last stage is averaged over its pixels (Lin et al., "Network In Network",
    arXiv 1312.4400, section 3.2).
    """

    def __init__(self, model: CnnModel, classes: int) -> None:
        super().__init__()
        pairs = itertools.pairwise((3, *model.widths))
        self.stages = nn.ModuleList(
            _Stage(inputs, outputs, model.norm == "batch") for inputs, outputs in pairs
        )
        self.head = nn.Linear(model.widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, classes) logits."""
        for stage in self.stages:
            images = stage(images)
        logits: Tensor = self.head(images.mean(dim=(2, 3)))
        return logits


class _Stage(nn.Module):
    """(B, inputs, H, W) to (B, outputs, H / 2, W / 2)."""

    def __init__(self, inputs: int, outputs: int, normed: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not normed)
        self.norm = norm(outputs, normed)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(max_pool_2x2(self.norm(self.convolution(images))))
