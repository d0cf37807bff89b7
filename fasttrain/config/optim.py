"""The optimisers, and the average of the weights they leave."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fasttrain.config.fields import Real, Section, Share, Whole, by_default


class SGD(Section):
    """Stochastic gradient descent; weight decay is added to the gradient.

    Momentum follows Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, section 2, in torch's form. Norms and biases decay only where
    `decay_biases` says so.
    """

    name: Literal["sgd"] = "sgd"
    lr: Real = Field(0.01, gt=0)
    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: Real = Field(0.0, ge=0)
    decay_biases: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamW(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2)."""

    name: Literal["adamw"] = "adamw"
    lr: Real = Field(1e-3, gt=0)
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Real = Field(1e-8, gt=0)
    weight_decay: Real = Field(0.01, ge=0)


class Muon(Section):
    """Orthogonalised momentum for kernels and matrices; `rest` takes everything else.

    `scale` multiplies the rate of a matrix of m rows and n columns: `shape` by sqrt(max(1, m/n))
    (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024), `rms` by
    0.2 sqrt(max(m, n)), so that rates tuned for AdamW fit (Liu et al., "Muon is scalable for LLM
    training", arXiv 2502.16982, section 2.2). `fix_norm` keeps the Frobenius norm of every
    matrix at sqrt(m): only directions are learnt, which suits kernels followed by a norm.
    """

    name: Literal["muon"] = "muon"
    lr: Real = Field(0.02, gt=0)
    momentum: Share = 0.95
    nesterov: bool = True
    weight_decay: Real = Field(0.0, ge=0)
    iterations: Whole = Field(5, ge=1, le=20)
    scale: Literal["shape", "rms", "none"] = "shape"
    fix_norm: bool = False
    rest: Annotated[SGD | AdamW, Field(discriminator="name"), by_default("name", "sgd")] = SGD()


Optim = Annotated[SGD | AdamW | Muon, Field(discriminator="name"), by_default("name", "sgd")]


class Ema(Section):
    """An exponential moving average of the weights; evaluation uses it.

    With `warmup` the decay of step t is at most (1 + t) / (10 + t), so that the random initial
    weights are soon forgotten.
    """

    decay: Real = Field(0.999, gt=0, lt=1)
    warmup: bool = True
