"""Parallel convolutions and their weighted sum, in two forms that compute the same.

Shapes: B pictures, I input channels, C output channels, L branches of one kernel size K.
Weights are (B, L), or (1, L) where they are the same for every picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def add(parts: Iterable[Tensor]) -> Tensor:
    """Add tensors of one shape and memory layout; unlike a sum of their stack, it keeps that."""
    return reduce(torch.add, parts)


class OutputMixing(nn.Module):
    """Run all branches as one convolution with L x C outputs, then weight and add these.

    Args:
        convolution: I to L x C channels.
        after: What happens to each branch before it is weighted; on (B, L x C, H, W).
        branches: L.
    """

    def __init__(self, convolution: nn.Conv2d, after: nn.Module, branches: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.after = after
        self.branches = branches

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, C, H, W)."""
        outputs: Tensor = self.after(self.convolution(images))
        shares = weights.to(outputs.dtype)[:, :, None, None, None]  # (B or 1, L, 1, 1, 1)
        return add(
            branch * shares[:, at] for at, branch in enumerate(outputs.chunk(self.branches, dim=1))
        )


class KernelMixing(nn.Module):
    """Mix the L kernels first, then convolve each picture with its own: linear branches only.

    Yang et al., "CondConv", arXiv 1904.04971, section 3: since a convolution is linear in its
    kernel, this equals mixing the outputs, for 1 / L of the multiply-adds. The pictures of a batch
    run as the groups of one convolution.
    """

    def __init__(self, convolution: nn.Conv2d, branches: int) -> None:
        super().__init__()
        self.convolution = _MixedConv2d(convolution, branches)

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, C, H, W)."""
        mixed: Tensor = self.convolution(images, weights)
        return mixed


class _MixedConv2d(nn.Module):
    """Holds the parameters of a convolution with L x C outputs, under the same names."""

    def __init__(self, convolution: nn.Conv2d, branches: int) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.padding = convolution.padding
        self.branches = branches

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        kernels = self._mix(weights, self.weight)  # (B or 1, C, I, K, K)
        bias = None if self.bias is None else self._mix(weights, self.bias)  # (B or 1, C)
        if len(weights) == 1:
            flat = None if bias is None else bias[0]
            return F.conv2d(images, kernels[0], flat, padding=self.padding)
        return _convolve_each(images, kernels, bias, self.padding)

    def _mix(self, weights: Tensor, parts: Tensor) -> Tensor:
        """Weight and add the L parts of (L x C, ...) for every picture: (B or 1, C, ...)."""
        shape = (len(weights), len(parts) // self.branches, *parts.shape[1:])
        return (weights @ parts.reshape(self.branches, -1)).reshape(shape)


def _convolve_each(
    images: Tensor, kernels: Tensor, bias: Tensor | None, padding: str | tuple[int, ...]
) -> Tensor:
    """Convolve picture b of (B, I, H, W) with kernel b of (B, C, I, K, K)."""
    batch, outputs = kernels.shape[:2]
    as_one = images.reshape(1, -1, *images.shape[2:])  # (1, B x I, H, W)
    mixed = F.conv2d(
        as_one,
        kernels.flatten(0, 1),
        None if bias is None else bias.flatten(),
        padding=padding,
        groups=batch,
    )
    mixed = mixed.reshape(batch, outputs, *mixed.shape[2:])
    return mixed.contiguous(memory_format=torch.channels_last)
