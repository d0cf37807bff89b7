"""The optimisers, and the average of the weights they leave."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fasttrain.config.fields import Real, Section, Share, Whole, by_default


class SGD(Section):
    """Stochastic gradient descent; weight decay is added to the gradient.

    Momentum follows Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, section 2, in torch's form.
    """

    name: Literal["sgd"] = "sgd"
    lr: Real = Field(0.01, gt=0)
    """Learning rate; `schedule` multiplies it by a factor that changes over the run."""
    momentum: Share = 0.9
    """Share of the momentum that is kept at each step; 0: no momentum."""
    nesterov: bool = False
    """Whether the update looks one step ahead along the momentum; needs one above 0."""
    weight_decay: Real = Field(0.0, ge=0)
    """This many times a weight is added to its gradient."""
    decay_biases: bool = False
    """Whether norms and biases decay, too; else they are spared."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamW(Section):
    """Adam with decoupled weight decay.

    Loshchilov and Hutter, arXiv 1711.05101, algorithm 2.
    """

    name: Literal["adamw"] = "adamw"
    lr: Real = Field(1e-3, gt=0)
    """Learning rate; `schedule` multiplies it by a factor that changes over the run."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Shares of the running means of the gradient and of its square that are kept at each step."""
    eps: Real = Field(1e-8, gt=0)
    """Is added to the root of the mean square, by which updates are divided."""
    weight_decay: Real = Field(0.01, ge=0)
    """Share of a weight, times the rate, that is lost at each step; norms and biases are spared."""


class Muon(Section):
    """Orthogonalised momentum for kernels and matrices; `rest` is the optimiser of all else.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the scale `rms`
    is that of Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, section 2.2.
    """

    name: Literal["muon"] = "muon"
    lr: Real = Field(0.02, gt=0)
    """Learning rate; `schedule` multiplies it, and that of `rest`, by a factor that changes over
    the run."""
    momentum: Share = 0.95
    """Share of the momentum that is kept at each step; the gradient makes up the rest."""
    nesterov: bool = True
    """Whether the update looks one step ahead along the momentum."""
    weight_decay: Real = Field(0.0, ge=0)
    """Share of a weight, times the rate, that is lost at each step."""
    iterations: Whole = Field(5, ge=1, le=20)
    """Newton-Schulz iterations, which bring the momentum's singular values to about 0.7 to 1.2."""
    scale: Literal["shape", "rms", "none"] = "shape"
    """What multiplies the rate of m output channels of n weights each: `shape` is
    sqrt(max(1, m/n)), `rms` is 0.2 sqrt(max(m, n)), so that rates tuned for AdamW fit, `none` is
    1."""
    fix_norm: bool = False
    """Whether each update first sets every matrix's Frobenius norm to sqrt(m): only directions are
    learnt, which suits kernels ahead of a norm."""
    rest: Annotated[SGD | AdamW, Field(discriminator="name"), by_default("name", "sgd")] = SGD()
    """The optimiser of all else: biases, norms, and the output layer."""


Optim = Annotated[SGD | AdamW | Muon, Field(discriminator="name"), by_default("name", "sgd")]


class Ema(Section):
    """An exponential moving average of the weights; evaluation uses it."""

    decay: Real = Field(0.999, gt=0, lt=1)
    """Share of the average that is kept at each step."""
    warmup: bool = True
    """Whether the decay of step t is at most (1 + t) / (10 + t), so that the random initial weights
    are soon forgotten."""
