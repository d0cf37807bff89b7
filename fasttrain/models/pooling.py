"""Maxima of pixels, written so that the compiler makes vector code of them, backwards, too.

Shapes: B pictures, C channels, H x W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def max_pool_2x2(images: Tensor) -> Tensor:
    """Halve (B, C, H, W) by the maximum of each 2x2 block; an odd last row or column is dropped.

    The gradient goes to the first of equal maxima, as that of `max_pool2d`, which the compiler
    cannot join with what stands around it: a step of the baseline takes 1.6 times as long with it.
    """
    pooled: Tensor = _MaxPool.apply(images)
    return pooled


class _MaxPool(torch.autograd.Function):
    """Remembers the place of each maximum: a sixth of the memory that two `maximum` keep.

    To compare pixels with their maximum again is not safe: compiled code may compute them anew,
    unrounded, and find none that is equal.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        height, width = (length // 2 * 2 for length in images.shape[2:])
        corners = (
            images[:, :, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)
        )
        a, b, c, d = corners
        above, below = torch.maximum(a, b), torch.maximum(c, d)
        # 0 to 3; on a CPU as numbers of the pictures' own type: vectors of one width throughout.
        kind = torch.int8 if images.is_cuda else images.dtype
        right_above, right_below = (b > a).to(kind), (d > c).to(kind)
        places = torch.where(below > above, 2 + right_below, right_above)
        # As the backward pass takes them: the compiler puts off what it has yet to rearrange to the
        # end of the forward pass, and reads all the pictures again for it.
        ctx.save_for_backward(_blocks(places))
        ctx.size = images.shape[2:]
        return torch.maximum(above, below)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (places,) = ctx.saved_tensors
        if gradient.is_cuda:
            gradient = _written(gradient)
        corner = torch.arange(4, dtype=places.dtype, device=places.device).view(2, 1, 2, 1)
        spread = torch.where(places == corner, _blocks(gradient), 0)
        even = spread.flatten(3, 4).flatten(1, 2)  # (B, H, W, C) but for an odd last row or column
        batch, height, width, channels = even.shape
        # `F.pad` would do; but for it the compiler has all that comes before change its layout.
        whole = even.new_zeros(batch, *ctx.size, channels)
        whole[:, :height, :width] = even
        return whole.movedim(3, 1)


def _written(gradient: Tensor) -> Tensor:
    """A view of (B, C, h, w) as it is in memory, channels last.

    Without it the compiler would compute what comes before for each of the four pixels of a block
    again. Strides are reckoned: to ask for them has it lay all gradients out anew.
    """
    _, channels, height, width = gradient.shape
    steps = (height * width * channels, 1, width * channels, channels)
    return gradient.contiguous(memory_format=torch.channels_last).as_strided(gradient.shape, steps)


def _blocks(pooled: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h, 1, w, 1, C), to be spread over blocks; a view."""
    return pooled.movedim(1, 3)[:, :, None, :, None]


def global_max_pool(images: Tensor) -> Tensor:
    """The maximum over the pixels of (B, C, H, W), (B, C); the gradient goes to one of them.

    That of `amax` compares all values with the maximum; compiled code computes them anew,
    unrounded, and where none is equal divides 0 by 0.
    """
    pooled: Tensor = _GlobalMax.apply(images)
    return pooled


class _GlobalMax(torch.autograd.Function):
    """Remembers where each maximum is; so does `max`, but its gradient scatters, and transposes."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        maxima, places = images.movedim(1, 3).flatten(1, 2).max(dim=1)  # (B, C) of (B, H W, C)
        ctx.save_for_backward(places)
        ctx.size = images.shape[2:]
        return maxima

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (places,) = ctx.saved_tensors
        pixel = torch.arange(ctx.size.numel(), device=places.device)[:, None]
        spread = torch.where(places[:, None] == pixel, gradient[:, None], 0)  # (B, H W, C)
        return spread.view(len(spread), *ctx.size, -1).movedim(3, 1)
