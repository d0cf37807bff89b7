"""The learning rate over a run, as a factor of the optimiser's own rates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fasttrain.config.fields import Duration, Real, Section, Share, StepsField, by_default


def _positive(value: Duration) -> Duration:
    if value.value == 0:
        raise ValueError("this is longer than nothing")
    return value


Span = Annotated[StepsField, AfterValidator(_positive)]


class Curve(Section):
    """What all schedules share: the rate climbs linearly over the `warmup`."""

    name: str
    warmup: StepsField = Duration(value=0, unit="epochs")


class Constant(Curve):
    """The rate stays at `optim.lr`."""

    name: Literal["constant"] = "constant"


class StepDecay(Curve):
    """The rate is multiplied by `gamma` every `every`, counted from the start of the run."""

    name: Literal["step"] = "step"
    every: Span
    gamma: Real = Field(0.1, gt=0, le=1)


class CosineDecay(Curve):
    """Half a cosine from 1 to `floor` over `t_max` after the warm-up, by default the whole rest.

    Loshchilov and Hutter, "SGDR", arXiv 1608.03983, section 3, without restarts.
    """

    name: Literal["cosine"] = "cosine"
    t_max: Span | None = None
    floor: Share = 0.0


class OneCycle(Curve):
    """Up from `start` to 1 over the `warmup`, then down to `floor` at the last step.

    Smith and Topin, "Super-convergence", arXiv 1708.07120, section 3; momentum stays as it is.
    """

    name: Literal["one_cycle"] = "one_cycle"
    warmup: StepsField = Duration(value=30, unit="%")
    curve: Literal["cosine", "linear"] = "cosine"
    start: Real = Field(0.04, gt=0, le=1)
    floor: Share = 4e-6


class LinearDecay(Curve):
    """A straight line from 1, after the warm-up, to `floor` after the last step."""

    name: Literal["linear"] = "linear"
    floor: Share = 0.0


Schedule = Annotated[
    Constant | StepDecay | CosineDecay | OneCycle | LinearDecay,
    Field(discriminator="name"),
    by_default("name", "constant"),
]
