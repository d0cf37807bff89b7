"""A network of blocks whose parallel convolutions are weighted by attention.

Shapes: B pictures, I input channels, C output channels, L branches, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fasttrain.config import AttentionCnnModel
from fasttrain.models.blocks import (
    Head,
    Pool,
    SqueezeExcite,
    StochasticDepth,
    activation,
    dropout,
    init_kaiming,
    norm,
)
from fasttrain.models.branches import KernelMixing, OutputMixing, add
from fasttrain.models.gate import build_gate, start_weight
from fasttrain.models.whitening import Whitening


class AttentionCNN(nn.Module):
    """Attention blocks, then a head; everything is chosen by the configuration.

    Attributes:
        temperature: () float32, of every softmax gate. It is a tensor and not a number, so that
            compiled code serves every value; it is part of the saved weights, so that these alone
            say what the network computes.
    """

    temperature: Tensor

    def __init__(self, model: AttentionCnnModel, classes: int) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))
        self.whitening = Whitening(model.whitening) if model.whitening else None
        inputs = self.whitening.outputs if self.whitening else 3
        self.activation = activation(model.activation)
        self.blocks = nn.ModuleList(_blocks(model, inputs))
        self.head = Head(
            model.scaled(model.stages[-1].width),
            classes,
            model.head.pool,
            model.head.hidden,
            model.activation,
            model.head.dropout,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, classes) logits."""
        if self.whitening is not None:
            images = self.activation(self.whitening(images))
        for block in self.blocks:
            images = block(images, self.temperature)
        logits: Tensor = self.head(images)
        return logits


def _blocks(model: AttentionCnnModel, channels: int) -> Iterator[AttentionBlock]:
    """The blocks of all stages; the chance to be left out grows linearly with the depth."""
    done = 0
    total = sum(stage.blocks for stage in model.stages)
    for stage in model.stages:
        width = model.scaled(stage.width)
        for last in [False] * (stage.blocks - 1) + [True]:
            done += 1
            left_out = model.stochastic_depth * done / total
            yield AttentionBlock(model, channels, width, stage.pool if last else "none", left_out)
            channels = width


class AttentionBlock(nn.Module):
    """Branches, weighted by the gate and added; norm, activation, and what else is configured.

    Branches are ordered by kernel size; those of one size run as one convolution.

    Where branches are linear the order is sum, norm, pooling, activation: as in a plain CNN, and
    for ReLU and max pooling the same as the reverse, at a quarter of the price. With a residual
    connection the block's input is added after the activation, and pooling comes last.

    Args:
        model: What the block is made of.
        inputs: I.
        width: C.
        pool: How the sides are halved at the end, or `none`.
        left_out: The chance that stochastic depth leaves the block out.
    """

    def __init__(
        self, model: AttentionCnnModel, inputs: int, width: int, pool: str, left_out: float
    ) -> None:
        super().__init__()
        self.gate = build_gate(model.gate, inputs, model.branches)
        sizes = sorted(set(model.sizes))
        self.counts = [model.sizes.count(size) for size in sizes]
        self.branches = nn.ModuleList(
            _branches(model, inputs, width, size, count)
            for size, count in zip(sizes, self.counts, strict=True)
        )
        self.norm = norm(width, model.norm == "mixed")
        self.finish = _finish(model, width)
        self.shortcut = _shortcut(model, inputs, width) if model.residual else None
        self.stochastic_depth = StochasticDepth(left_out)
        self.pool = Pool(pool)

    def forward(self, images: Tensor, temperature: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, C, H, W), or half as high and wide."""
        mixed = self.norm(self._mix(images, self.gate(images, temperature)))
        if self.shortcut is None:
            finished: Tensor = self.finish(self.pool(mixed))
            return finished
        residual = self.stochastic_depth(self.finish(mixed))
        pooled: Tensor = self.pool(self.shortcut(images) + residual)
        return pooled

    def _mix(self, images: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum over the branches of all kernel sizes, (B, C, H, W)."""
        parts = torch.split(weights, self.counts, dim=1)
        return add(branch(images, part) for branch, part in zip(self.branches, parts, strict=True))


def _branches(
    model: AttentionCnnModel, inputs: int, width: int, size: int, count: int
) -> OutputMixing | KernelMixing:
    """The branches of one kernel size."""
    outputs = count * width
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=model.norm == "none")
    if model.init == "kaiming":
        _init(convolution, model)
    if model.mix == "kernels":
        return KernelMixing(convolution, count)
    if model.norm != "branch":
        return OutputMixing(convolution, nn.Identity(), count)
    after = nn.Sequential(norm(outputs), *_activate(model))
    return OutputMixing(convolution, after, count)


@torch.no_grad()
def _init(convolution: nn.Conv2d, model: AttentionCnnModel) -> None:
    """Give the weighted sum of linear branches the variance of one convolution."""
    init_kaiming(convolution.weight, activated=model.activation != "none")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    if model.norm != "branch":
        start = start_weight(model.gate, model.branches)
        convolution.weight /= start * math.sqrt(model.branches)


def _finish(model: AttentionCnnModel, width: int) -> nn.Sequential:
    """What follows the sum: activation, unless each branch had its own; what else is asked for."""
    parts = [] if model.norm == "branch" else _activate(model)
    if model.squeeze_excite:
        parts.append(SqueezeExcite(width, model.squeeze_excite))
    if model.residual_norm:
        parts.append(norm(width))
    return nn.Sequential(*parts)


def _activate(model: AttentionCnnModel) -> list[nn.Module]:
    return [activation(model.activation), dropout(model.dropout, model.dropout_of)]


def _shortcut(model: AttentionCnnModel, inputs: int, width: int) -> nn.Module:
    """The identity, or a 1x1 convolution where the widths differ.

    He et al., "Deep Residual Learning", arXiv 1512.03385, section 3.3, option B.
    """
    if inputs == width:
        return nn.Identity()
    normed = model.norm != "none"
    projection = nn.Conv2d(inputs, width, 1, bias=not normed)
    return nn.Sequential(projection, norm(width, normed))
