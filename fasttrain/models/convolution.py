"""3x3 convolutions whose weights' gradient is computed by matrix products on CPUs with AMX.

Shapes: B pictures, I input channels, O output channels, H x W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# So many input channels at least, and so many pixels at most. Elsewhere oneDNN's own way was faster
# (64 channels at 15 x 15), and what is gathered would take much memory.
_WIDE, _FEW = 128, 64
# Intel's tiles, which multiply matrices faster than oneDNN feeds them in a convolution's backward
# pass. Where there are none (AMD EPYC, Zen 4), a step takes a twentieth longer with products.
_TILES = torch.cpu._is_amx_tile_supported()


class Convolution3x3(nn.Conv2d):
    """A convolution that keeps H x W, without a bias; same parameters and results as torch's.

    In bfloat16 on a CPU with AMX oneDNN spends most of a backward pass on the gradients of weights.
    Those of wide layers on few pixels take half as long and less where the pixels are gathered
    first and multiplied as matrices (250 pictures, 256 channels: 31 ms, not 68, at 7 x 7, and 6,
    not 34, at 3 x 3).

    Args:
        inputs: I.
        outputs: O.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, H, W)."""
        pixels = images.shape[2] * images.shape[3]
        suits = _TILES and self.training and self.in_channels >= _WIDE and pixels <= _FEW
        if not (suits and _in_bfloat16(images)):
            return super().forward(images)
        found: Tensor = _Convolution.apply(images.bfloat16(), self.weight.bfloat16())
        return found


def _in_bfloat16(images: Tensor) -> bool:
    """Whether a CPU convolves them in that precision."""
    if images.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return images.dtype == torch.bfloat16


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        return F.conv2d(images, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        images, weight = ctx.saved_tensors
        one, none = [1, 1], [0, 0]
        for_images, _, _ = torch.ops.aten.convolution_backward(
            gradient, images, weight, None, one, one, one, False, none, 1, [True, False, False]
        )
        return for_images, weight_gradient(images, gradient)


def weight_gradient(images: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a 3x3 kernel: (B, I, H, W) and (B, O, H, W) to (O, I, 3, 3).

    Row by row of the kernel, for which a third is gathered: all at once took a tenth longer.
    """
    batch, inputs, height, width = images.shape
    padded = F.pad(images.movedim(1, 3), (0, 0, 1, 1, 1, 1)).contiguous()  # (B, H + 2, W + 2, I)
    # Reckoned, since to ask for strides has the compiler lay all gradients out anew.
    row = (width + 2) * inputs
    steps = ((height + 2) * row, row, inputs, 1)
    slopes = gradient.movedim(1, 3).flatten(0, 2).T  # (O, B H W)
    products = []
    for above in range(3):
        # Three neighbours in a row lie one behind the other in memory: they are copied as one.
        columns = padded.as_strided((batch, height, width, 3 * inputs), steps, above * row)
        products.append(slopes @ columns.reshape(-1, 3 * inputs))
    product = torch.stack(products, dim=1)  # (O, 3, 3 I)
    return product.view(len(product), 3, 3, -1).movedim(3, 1)
