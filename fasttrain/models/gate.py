"""Gates: how much each branch of a block counts, picture by picture.

Shapes: B pictures, C channels, L branches. A gate maps a block's input (B, C, H, W) and the
temperature () to float32 weights, (B, L) where they are learnt and (1, L) where they are fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasttrain.config import Gate


class SoftmaxGate(nn.Module):
    """Weights that sum to one: softmax(linear(channel means) / temperature).

    Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", arXiv 1912.03458,
    sections 3 and 4, with one linear layer. A high temperature gives near-uniform weights.
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, branches)

    def forward(self, images: Tensor, temperature: Tensor) -> Tensor:
        """Return (B, L) weights."""
        scores = self.linear(images.mean(dim=(2, 3))).float()
        return torch.softmax(scores / temperature, dim=1)


class SigmoidGate(nn.Module):
    """Weights between 0 and 1, each on its own: sigmoid(linear(channel means)).

    Yang et al., "CondConv", arXiv 1904.04971, section 3. The temperature plays no part.
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, branches)

    def forward(self, images: Tensor, temperature: Tensor) -> Tensor:  # noqa: ARG002 - a gate's
        """Return (B, L) weights."""
        return torch.sigmoid(self.linear(images.mean(dim=(2, 3))).float())


class FixedGate(nn.Module):
    """The same weight for every branch and picture: a control without attention."""

    weights: Tensor

    def __init__(self, branches: int, weight: float) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((1, branches), weight), persistent=False)

    def forward(self, images: Tensor, temperature: Tensor) -> Tensor:  # noqa: ARG002 - a gate's
        """Return (1, L) weights."""
        return self.weights


def build_gate(gate: Gate, channels: int, branches: int) -> nn.Module:
    """Build the gate that `gate` describes, for a block with `channels` inputs."""
    match gate.name:
        case "softmax":
            return SoftmaxGate(channels, branches)
        case "sigmoid":
            return SigmoidGate(channels, branches)
        case "uniform":
            return FixedGate(branches, 1 / branches)
        case "none":
            return FixedGate(branches, 1.0)


def start_weight(gate: Gate, branches: int) -> float:
    """What a branch's weight is before training, about; initial kernels allow for it."""
    return {"softmax": 1 / branches, "sigmoid": 0.5, "uniform": 1 / branches, "none": 1.0}[
        gate.name
    ]
