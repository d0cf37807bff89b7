"""The networks: one section for each family, told apart by `family`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fasttrain.config.fields import Duration, Real, Section, Share, StepsField, Whole, by_default

_ROUNDING = 8  # channels: what vector units and tensor cores like to be given


def scaled(width: int, factor: float) -> int:
    """A width times `factor`, as a multiple of 8."""
    return width if factor == 1 else max(round(width * factor / _ROUNDING), 1) * _ROUNDING


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("a kernel size is odd, so that the kernel has a middle; take 1, 3, 5 or 7")
    return size


def _as_list(value: object) -> object:
    """`3` stands for `[3]`."""
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_gate(value: object) -> object:
    """`softmax` stands for `{name: softmax}`."""
    return {"name": value} if isinstance(value, str) else value


Width = Annotated[Whole, Field(ge=1, le=65_536)]
Kernel = Annotated[Whole, Field(ge=1, le=31), AfterValidator(_odd)]


class CnnModel(Section):
    """A plain convolutional network: convolution, norm, pooling and ReLU for each width."""

    family: Literal["cnn"] = "cnn"
    widths: tuple[Width, ...] = Field((64, 128, 256), min_length=1)
    norm: Literal["none", "batch"] = "none"

    @property
    def halvings(self) -> int:
        """How often the picture's sides are halved."""
        return len(self.widths)


class Gate(Section):
    """What weights the branches of a block.

    `softmax` and `sigmoid` learn the weights of a picture from its channel means; `uniform` gives
    every branch 1 / branches, `none` gives every branch 1.

    The softmax's temperature falls linearly from `temperature` to 1 over `anneal`: near-uniform
    weights keep every branch learning while the gate knows nothing yet (Chen et al., "Dynamic
    Convolution: Attention over Convolution Kernels", arXiv 1912.03458, section 4).
    """

    name: Literal["softmax", "sigmoid", "uniform", "none"] = "softmax"
    temperature: Real = Field(30.0, ge=1)
    anneal: StepsField = Duration(value=10, unit="epochs")


class Stage(Section):
    """Blocks of one width; the last of them halves the picture's sides by `pool`."""

    width: Width
    blocks: Whole = Field(1, ge=1, le=1000)
    pool: Literal["max", "mean", "none"] = "max"


class Head(Section):
    """From the last block's pixels to the logits: pooling, hidden layers, a linear layer.

    `hidden` lists the widths of fully connected layers, each with the blocks' activation;
    `dropout` stands before the last layer.
    """

    pool: Literal["mean", "max"] = "mean"
    hidden: tuple[Width, ...] = ()
    dropout: Share = 0.0


class Whitening(Section):
    """A first layer that whitens patches of `patch` x `patch` pixels; only its `bias` is trained.

    `epsilon` is added to the variances of their principal axes, so that noise is not blown up.
    Without a `bias` nothing ahead of the first convolution asks for gradients, which saves time.
    """

    patch: Whole = Field(2, ge=1, le=7)
    epsilon: Real = Field(5e-4, gt=0)
    bias: bool = True


class AttentionCnnModel(Section):
    """Blocks of parallel convolutions whose outputs a gate weights and adds.

    The first block sees the pictures, or what `whitening` makes of them. Branches are convolutions
    of `kernels`, one size for all or one for each. With `norm: branch` each branch is normalised,
    activated and dropped out before it is weighted; otherwise branches are linear up to the sum,
    and norm (`mixed`, or `none`), activation and dropout follow it. Linear branches may be mixed
    before they are applied: `mix: kernels` is the same network as `mix: outputs`, with one
    convolution for each picture in place of one for each branch.

    `width_factor` multiplies every width, rounded to a multiple of 8. With `residual` a block's
    input is added to what the block makes of it; with `residual_norm` a batch norm stands before
    that sum, since what comes out of ReLUs is never negative and could only ever add (He et al.,
    "Identity Mappings in Deep Residual Networks", arXiv 1603.05027, section 4.1).
    `squeeze_excite` is the factor by which that part narrows. `dropout` zeroes single values, or
    whole channels, which is much faster on a CPU. `stochastic_depth` is the chance that the last
    block is left out for a picture; the chance grows linearly from the first block.
    """

    family: Literal["attention_cnn"] = "attention_cnn"
    whitening: Whitening | None = None
    stages: tuple[Stage, ...] = Field(
        (Stage(width=64), Stage(width=128), Stage(width=256)), min_length=1
    )
    width_factor: Real = Field(1.0, gt=0, le=64)
    branches: Whole = Field(3, ge=1, le=64)
    kernels: Annotated[tuple[Kernel, ...], BeforeValidator(_as_list)] = Field((3,), min_length=1)
    gate: Annotated[Gate, BeforeValidator(_as_gate)] = Gate()
    mix: Literal["outputs", "kernels"] = "outputs"
    norm: Literal["none", "branch", "mixed"] = "mixed"
    activation: Literal["relu", "gelu", "silu", "none"] = "relu"
    residual: bool = False
    residual_norm: bool = False
    squeeze_excite: Whole | None = Field(None, ge=1)
    dropout: Share = 0.0
    dropout_of: Literal["values", "channels"] = "values"
    stochastic_depth: Share = 0.0
    init: Literal["kaiming", "torch"] = "kaiming"
    head: Head = Head()

    @model_validator(mode="after")
    def _parts_fit(self) -> AttentionCnnModel:
        if len(self.kernels) not in (1, self.branches):
            raise ValueError(
                f"kernels lists {len(self.kernels)} sizes for {self.branches} branches; "
                "give one for all, or one for each"
            )
        if self.mix == "kernels" and self.norm == "branch":
            raise ValueError(
                "kernels can be mixed only where branches are linear; "
                "choose norm: mixed or none, or mix: outputs"
            )
        if self.stochastic_depth and not self.residual:
            raise ValueError("stochastic_depth leaves blocks out: it needs residual: true")
        if self.residual_norm and not self.residual:
            raise ValueError("residual_norm stands before a residual sum: it needs residual: true")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """The kernel size of each branch."""
        return self.kernels * self.branches if len(self.kernels) == 1 else self.kernels

    @property
    def halvings(self) -> int:
        """How often the picture's sides are halved."""
        return sum(stage.pool != "none" for stage in self.stages)

    def scaled(self, width: int) -> int:
        """A width times `width_factor`, as a multiple of 8."""
        return scaled(width, self.width_factor)


def _six_n_plus_four(depth: int) -> int:
    if (depth - 4) % 6:
        lower = max(depth - (depth - 4) % 6, 10)
        raise ValueError(f"a depth is 6 n + 4, such as {lower} or {lower + 6}")
    return depth


class WideResnetModel(Section):
    """WRN-`depth`-`widen` (Zagoruyko and Komodakis, arXiv 1605.07146)."""

    family: Literal["wide_resnet"] = "wide_resnet"
    depth: Annotated[Whole, Field(ge=10, le=1000), AfterValidator(_six_n_plus_four)] = 28
    widen: Whole = Field(10, ge=1, le=64)
    dropout: Share = 0.0

    @property
    def halvings(self) -> int:
        """How often the picture's sides are halved, an odd side being rounded down."""
        return 0  # its strides round up: a pixel is always left


class WhitenedCnnModel(Section):
    """A shallow network for few epochs (Jordan, arXiv 2404.00498, sections 3.1 to 3.3).

    Behind the whitening, for each width, stand so many `convolutions`, each with a batch norm
    that has a bias and, with `norm_scale`, a scale; its running statistics take `norm_momentum`
    of every batch. With `ghost_batch` so many pictures are a batch to it, however many there are
    in a step (`blocks.GhostBatchNorm2d`). `init: dirac` starts convolutions as the identity on
    their first channels. Logits are multiplied by `logit_scale`.
    """

    family: Literal["whitened_cnn"] = "whitened_cnn"
    widths: tuple[Width, ...] = Field((64, 256, 256), min_length=1)
    width_factor: Real = Field(1.0, gt=0, le=64)
    convolutions: Whole = Field(2, ge=1, le=8)
    residual: bool = False
    activation: Literal["relu", "gelu", "silu"] = "gelu"
    init: Literal["dirac", "kaiming"] = "dirac"
    whitening: Whitening = Whitening()
    norm_momentum: Real = Field(0.4, gt=0, le=1)
    norm_scale: bool = False
    # Even, so that what is mixed in pairs is never parted.
    ghost_batch: Whole | None = Field(None, ge=2, multiple_of=2)
    logit_scale: Real = Field(1 / 9, gt=0)

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
