"""The learning rate over a run, as a factor of the optimiser's own rates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fasttrain.config.fields import Duration, Real, Section, Share, StepsField, Words, by_default


def _positive(value: Duration) -> Duration:
    if value.value == 0:
        raise ValueError("this is longer than nothing")
    return value


Span = Annotated[
    StepsField,
    AfterValidator(_positive),
    Words("duration above 0, such as 20steps, 2epochs or 10%"),
]


class Curve(Section):
    """What all schedules share."""

    name: str
    warmup: StepsField = Duration(value=0, unit="epochs")
    """How long the rate climbs linearly, from the start of the run, to the optimiser's own."""


class Constant(Curve):
    """The rate stays at the optimiser's own, `optim.lr`."""

    name: Literal["constant"] = "constant"


class StepDecay(Curve):
    """The rate falls in steps."""

    name: Literal["step"] = "step"
    every: Span
    """How often the rate falls, counted from the start of the run."""
    gamma: Real = Field(0.1, gt=0, le=1)
    """What the rate is multiplied by each time."""


class CosineDecay(Curve):
    """The rate falls by half a cosine from the optimiser's own after the warm-up.

    Loshchilov and Hutter, "SGDR", arXiv 1608.03983, section 3, without restarts.
    """

    name: Literal["cosine"] = "cosine"
    t_max: Span | None = None
    """How long the rate falls, counted from the end of the warm-up; then it stays. null: to the end
    of the run."""
    floor: Share = 0.0
    """What the rate falls to, as a share of the optimiser's own."""


class OneCycle(Curve):
    """The rate climbs to the optimiser's own over the warm-up, then falls to the last step.

    Smith and Topin, "Super-convergence", arXiv 1708.07120, section 3; momentum stays as it is.
    """

    name: Literal["one_cycle"] = "one_cycle"
    warmup: StepsField = Duration(value=30, unit="%")
    """How long the rate climbs, from the start of the run."""
    curve: Literal["cosine", "linear"] = "cosine"
    """How the rate climbs and falls: by half a cosine each, or in straight lines."""
    start: Real = Field(0.04, gt=0, le=1)
    """What the rate begins with, as a share of the optimiser's own."""
    floor: Share = 4e-6
    """What the rate ends with, as a share of the optimiser's own."""


class LinearDecay(Curve):
    """The rate falls in a straight line from the optimiser's own after the warm-up."""

    name: Literal["linear"] = "linear"
    floor: Share = 0.0
    """What the rate comes to after the last step, as a share of the optimiser's own."""


Schedule = Annotated[
    Constant | StepDecay | CosineDecay | OneCycle | LinearDecay,
    Field(discriminator="name"),
    by_default("name", "constant"),
]
