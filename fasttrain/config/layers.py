"""What several networks are made of: widths, kernels, a whitening layer."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from fasttrain.config.fields import Real, Section, Whole, Words

_ROUNDING = 8  # channels: what vector units and tensor cores like to be given


def scaled(width: int, factor: float) -> int:
    """A width times `factor`, as a multiple of 8."""
    return width if factor == 1 else max(round(width * factor / _ROUNDING), 1) * _ROUNDING


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("a kernel size is odd, so that the kernel has a middle; take 1, 3, 5 or 7")
    return size


Width = Annotated[Whole, Field(ge=1, le=65_536)]
Kernel = Annotated[Whole, Field(ge=1, le=31), AfterValidator(_odd), Words("odd number")]


class Whitening(Section):
    """A first layer that whitens small patches: the training pictures set it, and it stays.

    It maps patches onto their principal axes, each to unit variance (`models.whitening`).
    """

    patch: Whole = Field(2, ge=1, le=7)
    """Side of a patch, in pixels."""
    epsilon: Real = Field(5e-4, gt=0)
    """Is added to the variances of the patches' principal axes, so that noise is not blown up."""
    bias: bool = True
    """Whether the layer has a bias, which is trained. Without it nothing ahead of the first
    convolution asks for gradients, which saves time."""
