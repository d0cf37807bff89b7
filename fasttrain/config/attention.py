"""The network of parallel convolutions that are weighted by attention."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from fasttrain.config.fields import Duration, Real, Section, Share, StepsField, Whole
from fasttrain.config.layers import Kernel, Whitening, Width, scaled


def _as_list(value: object) -> object:
    """`3` stands for `[3]`."""
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_gate(value: object) -> object:
    """`softmax` stands for `{name: softmax}`."""
    return {"name": value} if isinstance(value, str) else value


class Gate(Section):
    """What weights the branches of a block.

    The softmax's temperature falls since near-uniform weights keep every branch learning while the
    gate knows nothing yet (Chen et al., "Dynamic Convolution: Attention over Convolution Kernels",
    arXiv 1912.03458, section 4).
    """

    name: Literal["softmax", "sigmoid", "uniform", "none"] = "softmax"
    """`softmax` and `sigmoid` learn the weights of a picture from its channel means; `uniform`
    gives every branch 1 / branches, `none` gives every branch 1."""
    temperature: Real = Field(30.0, ge=1)
    """Of the softmax at the start; high ones make its weights nearly equal."""
    anneal: StepsField = Duration(value=10, unit="epochs")
    """How long the softmax's temperature takes to fall linearly to 1."""


class Stage(Section):
    """Blocks of one width."""

    width: Width
    """Channels that each block puts out, before `model.width_factor`."""
    blocks: Whole = Field(1, ge=1, le=1000)
    """How many blocks there are."""
    pool: Literal["max", "mean", "none"] = "max"
    """How the last of them halves the picture's sides: by the largest or the mean of 2 x 2 pixels,
    or not at all."""


class Head(Section):
    """From the last block's pixels to the classes: pooling, hidden layers, a linear layer."""

    pool: Literal["mean", "max"] = "mean"
    """What is taken of each channel's pixels: their mean, or the largest."""
    hidden: tuple[Width, ...] = ()
    """Widths of fully connected layers, each with the blocks' activation."""
    dropout: Share = 0.0
    """The chance that a value ahead of the last layer is zeroed in training."""


class AttentionCnnModel(Section):
    """Blocks of parallel convolutions, the branches, whose outputs a gate weights and adds.

    With `residual_norm` a batch norm stands before the residual sum, since what comes out of ReLUs
    is never negative and could only ever add (He et al., "Identity Mappings in Deep Residual
    Networks", arXiv 1603.05027, section 4.1).
    """

    family: Literal["attention_cnn"] = "attention_cnn"
    whitening: Whitening | None = None
    """A whitening layer ahead of the blocks. null: the first block sees the pictures."""
    stages: tuple[Stage, ...] = Field(
        (Stage(width=64), Stage(width=128), Stage(width=256)), min_length=1
    )
    """The blocks, in order."""
    width_factor: Real = Field(1.0, gt=0, le=64)
    """Multiplies the width of every stage, rounded to a multiple of 8."""
    branches: Whole = Field(3, ge=1, le=64)
    """Parallel convolutions in each block."""
    kernels: Annotated[tuple[Kernel, ...], BeforeValidator(_as_list)] = Field((3,), min_length=1)
    """Side of the branches' kernels, in pixels: one for all, which may be written `3`, or one for
    each."""
    gate: Annotated[Gate, BeforeValidator(_as_gate)] = Gate()
    """What weights the branches of a block; `softmax` is short for `{name: softmax}`."""
    mix: Literal["outputs", "kernels"] = "outputs"
    """What is weighted and added: the branches' outputs, or their kernels, which makes the same
    network with one convolution for each picture and kernel size, not one for each branch; not
    with `norm=branch`."""
    norm: Literal["none", "branch", "mixed"] = "mixed"
    """`branch`: each branch has its own batch norm, activation and dropout before it is weighted.
    `mixed`: batch norm, activation and dropout follow the sum. `none`: as `mixed`, but no norm."""
    activation: Literal["relu", "gelu", "silu", "none"] = "relu"
    """What follows the norm of a block, or a branch, and the whitening."""
    residual: bool = False
    """Whether a block's input is added to what the block makes of it."""
    residual_norm: bool = False
    """Whether a batch norm stands before the residual sum; needs `residual`."""
    squeeze_excite: Whole | None = Field(None, ge=1)
    """Scales each channel by what the means of all say about it: the factor by which that part
    narrows (squeeze-and-excitation). null: no such part."""
    dropout: Share = 0.0
    """The chance that a value behind a block's activation is zeroed in training."""
    dropout_of: Literal["values", "channels"] = "values"
    """What `dropout` zeroes: single values, or whole channels, which is much faster on a CPU."""
    stochastic_depth: Share = 0.0
    """The chance that the last block is left out for a picture in training; it grows linearly from
    the first block. Needs `residual`."""
    init: Literal["kaiming", "torch"] = "kaiming"
    """The branches' first weights: `kaiming` keeps the variance of what passes the blocks, `torch`
    leaves them as torch makes them."""
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
