"""The networks: one section for each family, told apart by `family`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fasttrain.config.attention import AttentionCnnModel
from fasttrain.config.fields import Real, Section, Share, Whole, Words, by_default
from fasttrain.config.layers import Whitening, Width, scaled


class CnnModel(Section):
    """A plain convolutional network: convolution, norm, pooling and ReLU for each width."""

    family: Literal["cnn"] = "cnn"
    widths: tuple[Width, ...] = Field((64, 128, 256), min_length=1)
    """Channels of each convolution, 3 x 3 pixels, which also halves the picture's sides."""
    norm: Literal["none", "batch"] = "none"
    """What follows each convolution: nothing, or batch norm."""

    @property
    def halvings(self) -> int:
        """How often the picture's sides are halved."""
        return len(self.widths)


def _six_n_plus_four(depth: int) -> int:
    if (depth - 4) % 6:
        lower = max(depth - (depth - 4) % 6, 10)
        raise ValueError(f"a depth is 6 n + 4, such as {lower} or {lower + 6}")
    return depth


Depth = Annotated[
    Whole,
    Field(ge=10, le=1000),
    AfterValidator(_six_n_plus_four),
    Words("whole number 6 n + 4"),
]


class WideResnetModel(Section):
    """The wide residual network WRN-`depth`-`widen`.

    Zagoruyko and Komodakis, arXiv 1605.07146.
    """

    family: Literal["wide_resnet"] = "wide_resnet"
    depth: Depth = 28
    """Layers: three groups of n blocks."""
    widen: Whole = Field(10, ge=1, le=64)
    """What multiplies the widths of the groups, which are 16, 32 and 64 channels."""
    dropout: Share = 0.0
    """The chance that a value between a block's convolutions is zeroed in training."""

    @property
    def halvings(self) -> int:
        """None that counts: strides round up, so that a pixel is always left."""
        return 0


class WhitenedCnnModel(Section):
    """A shallow network for few epochs: whitening, a group of convolutions for each width.

    Jordan, arXiv 2404.00498, sections 3.1 to 3.3. `blocks.GhostBatchNorm2d` is the norm with
    `ghost_batch`.
    """

    family: Literal["whitened_cnn"] = "whitened_cnn"
    widths: tuple[Width, ...] = Field((64, 256, 256), min_length=1)
    """Channels of each group, which also halves the picture's sides."""
    width_factor: Real = Field(1.0, gt=0, le=64)
    """Multiplies every width, rounded to a multiple of 8."""
    convolutions: Whole = Field(2, ge=1, le=8)
    """Convolutions of a group, 3 x 3 pixels, each with batch norm and activation."""
    residual: bool = False
    """Whether what a group's first convolution led to is added ahead of its last activation."""
    activation: Literal["relu", "gelu", "silu"] = "gelu"
    """What follows each norm, and the whitening."""
    init: Literal["dirac", "kaiming"] = "dirac"
    """The first weights: `dirac` starts convolutions as the identity on their first channels,
    `kaiming` keeps the variance of what passes."""
    whitening: Whitening = Whitening()
    norm_momentum: Real = Field(0.4, gt=0, le=1)
    """Share of each batch, or ghost batch, in the running statistics of batch norm."""
    norm_scale: bool = False
    """Whether batch norm learns a scale, beside its bias."""
    # Even, so that what is mixed in pairs is never parted.
    ghost_batch: Whole | None = Field(None, ge=2, multiple_of=2)
    """Pictures that are one batch to batch norm. What a process takes at a time must be a multiple
    of them, or fewer. null: all of that is one."""
    logit_scale: Real = Field(1 / 9, gt=0)
    """Multiplies the logits, which the network puts out."""

    @property
    def halvings(self) -> int:
        """How often the picture's sides are halved."""
        return len(self.widths)

    def scaled(self, width: int) -> int:
        """A width times `width_factor`, as a multiple of 8."""
        return scaled(width, self.width_factor)


Model = Annotated[
    CnnModel | AttentionCnnModel | WideResnetModel | WhitenedCnnModel,
    Field(discriminator="family"),
    by_default("family", "cnn"),
]
