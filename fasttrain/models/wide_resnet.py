"""Wide residual networks: the strong plain reference.

Zagoruyko and Komodakis, "Wide Residual Networks", arXiv 1605.07146: WRN-d-k has 6 n + 4 = d
layers, three groups of n blocks, of 16 k, 32 k and 64 k channels (table 1). Blocks are
pre-activated (He et al., "Identity Mappings in Deep Residual Networks", arXiv 1603.05027).

Shapes: B pictures, C channels, H x W pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.config import WideResnetModel
from fasttrain.models.blocks import Head, dropout

_STEM = 16  # channels


class WideResNet(nn.Module):
    """A 3x3 convolution, three groups of blocks, norm, ReLU, mean pooling, a linear layer."""

    def __init__(self, model: WideResnetModel, classes: int) -> None:
        super().__init__()
        widths = [_STEM * model.widen * factor for factor in (1, 2, 4)]
        self.stem = nn.Conv2d(3, _STEM, 3, padding=1, bias=False)
        blocks = []
        inputs = _STEM
        for group, width in enumerate(widths):
            for number in range((model.depth - 4) // 6):
                stride = 2 if group and not number else 1
                blocks.append(_Block(inputs, width, stride, model.dropout))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = Head(inputs, classes)
        self._init()

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, classes) logits."""
        images = self.blocks(self.stem(images))
        logits: Tensor = self.head(F.relu(self.norm(images)))
        return logits

    def _init(self) -> None:
        """As the paper's code: normal kernels by their outputs (arXiv 1502.01852, section 2.2)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)


class _Block(nn.Module):
    """norm, ReLU, 3x3, norm, ReLU, dropout, 3x3, and the input added (figure 1 d).

    Where the width changes, the input is projected after its first norm and ReLU.
    """

    def __init__(self, inputs: int, width: int, stride: int, drop: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.convolution1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.dropout = dropout(drop)
        self.convolution2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.projection = (
            nn.Conv2d(inputs, width, 1, stride, bias=False) if inputs != width else None
        )

    def forward(self, images: Tensor) -> Tensor:
        active = F.relu(self.norm1(images))
        residual = self.dropout(F.relu(self.norm2(self.convolution1(active))))
        shortcut = images if self.projection is None else self.projection(active)
        added: Tensor = self.convolution2(residual) + shortcut
        return added
