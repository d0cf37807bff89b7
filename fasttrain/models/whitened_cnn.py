"""A shallow, wide network that is built to be trained in a few epochs.

Its first layer whitens and is not learnt; all other convolutions start near the identity. Jordan,
"94 % on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, sections 3.1 to 3.3.

Shapes: B pictures, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fasttrain.config import WhitenedCnnModel
from fasttrain.models.blocks import GhostBatchNorm2d, activation, init_kaiming
from fasttrain.models.convolution import Convolution3x3
from fasttrain.models.pooling import global_max_pool, max_pool_2x2
from fasttrain.models.whitening import Whitening


class WhitenedCNN(nn.Module):
    """Whitening, a group of convolutions for each width, max pooling, a linear layer."""

    def __init__(self, model: WhitenedCnnModel, classes: int) -> None:
        super().__init__()
        self.whitening = Whitening(model.whitening)
        self.activation = activation(model.activation)
        self.groups = nn.Sequential(*_groups(model, self.whitening.outputs))
        self.head = nn.Linear(model.scaled(model.widths[-1]), classes, bias=False)
        self.scale = model.logit_scale

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, classes) logits."""
        features = self.groups(self.activation(self.whitening(images)))
        logits: Tensor = self.head(global_max_pool(features)) * self.scale
        return logits


def _groups(model: WhitenedCnnModel, inputs: int) -> Iterator[nn.Module]:
    for width in map(model.scaled, model.widths):
        yield _Group(model, inputs, width)
        inputs = width


class _Group(nn.Module):
    """(B, inputs, H, W) to (B, outputs, H / 2, W / 2): pooling follows the first convolution.

    With `residual` what the first convolution led to is added to what the last ones make of it.
    """

    def __init__(self, model: WhitenedCnnModel, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * (model.convolutions - 1)
        self.convolutions = nn.ModuleList(_convolution(model, each, outputs) for each in widths)
        self.norms = nn.ModuleList(_norm(model, outputs) for _ in widths)
        self.activation = activation(model.activation)
        self.residual = model.residual

    def forward(self, images: Tensor) -> Tensor:
        (convolution, norm), *others = zip(self.convolutions, self.norms, strict=True)
        images = entered = self.activation(norm(max_pool_2x2(convolution(images))))
        for convolution, norm in others:
            images = norm(convolution(images))
            if self.residual and norm is self.norms[-1]:
                images = images + entered
            images = self.activation(images)
        return images


def _convolution(model: WhitenedCnnModel, inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution; `dirac` passes its first inputs on and draws the rest at random."""
    convolution = Convolution3x3(inputs, outputs)
    with torch.no_grad():
        if model.init == "dirac":
            passed = torch.arange(min(inputs, outputs))
            convolution.weight[passed] = 0
            # All at once: torch's `dirac_` takes milliseconds, and a run on a GPU about a second.
            convolution.weight[passed, passed, 1, 1] = 1
        else:
            init_kaiming(convolution.weight)
    return convolution


def _norm(model: WhitenedCnnModel, channels: int) -> nn.BatchNorm2d:
    """Batch norm; without a scale, which max pooling and activations can do without."""
    momentum, ghost_batch = model.norm_momentum, model.ghost_batch
    norm = (
        GhostBatchNorm2d(channels, ghost_batch, momentum)
        if ghost_batch
        else nn.BatchNorm2d(channels, momentum=momentum)
    )
    if not model.norm_scale:
        norm.weight.requires_grad_(False)
    return norm
