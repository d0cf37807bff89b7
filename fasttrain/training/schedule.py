"""Durations to steps, and rates as pure functions of the step."""

from __future__ import annotations

import math
from typing import NoReturn

from fasttrain.config import (
    AttentionCnnModel,
    Constant,
    CosineDecay,
    Duration,
    LinearDecay,
    Model,
    OneCycle,
    Schedule,
    StepDecay,
)
from fasttrain.errors import UserError


def to_steps(duration: Duration, steps_per_epoch: int, total: int) -> int:
    """Turn a duration into steps, rounded, at least 1 unless it is 0.

    Args:
        duration: In steps, epochs or per cent of the run; minutes have no fixed number of steps.
        steps_per_epoch: Steps in one epoch.
        total: Steps in the whole run.

    Raises:
        ValueError: the duration is in minutes.
    """
    per_unit = {"steps": 1, "epochs": steps_per_epoch, "%": total / 100}
    if duration.unit not in per_unit:
        raise ValueError(f"{duration} has no fixed number of steps")
    steps = round(duration.value * per_unit[duration.unit])
    return max(steps, 1) if duration.value else 0


def is_due(step: int, every: int, total: int) -> bool:
    """Whether something that happens every `every` steps happens after step number `step`.

    The last step of the run is always due.
    """
    return step == total or (every > 0 and step % every == 0)


class Rates:
    """The learning rate of every step, as a factor of the optimiser's own rates.

    Args:
        schedule: Which curve.
        steps_per_epoch: Steps in one epoch.
        total: Steps in the whole run.
    """

    def __init__(self, schedule: Schedule, steps_per_epoch: int, total: int) -> None:
        self._schedule, self._total = schedule, total
        self._warmup = to_steps(schedule.warmup, steps_per_epoch, total)
        match schedule:  # steps between two drops, or from the end of the warm-up to the floor
            case StepDecay(every=span) | CosineDecay(t_max=Duration() as span):
                self._span = to_steps(span, steps_per_epoch, total)
            case _:
                self._span = max(total - self._warmup, 1)

    def __call__(self, step: int) -> float:
        """The factor of step number `step`, counted from 0."""
        schedule = self._schedule
        if isinstance(schedule, OneCycle):
            return self._one_cycle(schedule, step)
        if step < self._warmup:
            return (step + 1) / self._warmup
        progress = min((step - self._warmup) / self._span, 1.0)
        match schedule:
            case Constant():
                return 1.0
            case StepDecay(gamma=gamma):
                return gamma ** (step // self._span)
            case LinearDecay(floor=floor):
                return _straight(1.0, floor, progress)
            case CosineDecay(floor=floor):
                return _half_cosine(1.0, floor, progress)

    def _one_cycle(self, schedule: OneCycle, step: int) -> float:
        """Rise to 1 at the last step of the warm-up, fall to the floor at the last of the run."""
        between = _half_cosine if schedule.curve == "cosine" else _straight
        top, end = max(self._warmup - 1, 0), self._total - 1
        if step < top:
            return between(schedule.start, 1.0, step / top)
        return between(1.0, schedule.floor, (step - top) / max(end - top, 1))


def _straight(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def check(schedule: Schedule, epochs: int, steps_per_epoch: int | None = None) -> list[str]:
    """Hold a schedule against the run's length; return what is legal but odd, one line each.

    Args:
        schedule: The schedule.
        epochs: Length of the run.
        steps_per_epoch: Steps in one epoch; while they are not known, what is counted in steps
            is not checked.

    Raises:
        UserError: no run of this length can follow the schedule.
    """
    warmup = _share(schedule.warmup, epochs, steps_per_epoch)
    if warmup > 1:
        _refuse("warmup", schedule.warmup, f"it is longer than the run of {epochs} epochs")
    match schedule:
        case StepDecay(every=every):
            return _check_step(every, _share(every, epochs, steps_per_epoch), warmup, epochs)
        case CosineDecay(t_max=Duration() as t_max):
            share = _share(t_max, epochs, steps_per_epoch)
            return _check_cosine(t_max, share + warmup, schedule.warmup, epochs)
        case Constant():
            return []
    odd = f"schedule.warmup={schedule.warmup} takes more than half of the {epochs} epochs"
    return [odd] if warmup > 0.5 else []


def _check_step(every: Duration, share: float, warmup: float, epochs: int) -> list[str]:
    if share >= 1:
        _refuse(
            "every",
            every,
            f"the first step lies beyond the end of the run of {epochs} epochs, "
            "so the rate would never fall",
        )
    odd = f"schedule.every={every} is shorter than the warm-up, so the rate falls as that ends"
    return [odd] if share < warmup else []


def _check_cosine(t_max: Duration, end: float, warmup: Duration, epochs: int) -> list[str]:
    if end > 1 + 1e-9:  # shares may not add up to exactly 1
        _refuse("t_max", t_max, f"with a warm-up of {warmup} it does not fit into {epochs} epochs")
    odd = f"schedule.t_max={t_max} ends before the run of {epochs} epochs; its floor is kept then"
    return [odd] if end < 1 - 1e-9 else []


def _share(duration: Duration, epochs: int, steps_per_epoch: int | None) -> float:
    """A duration as a share of the run; NaN, which no comparison holds for, if it is unknown."""
    if duration.unit == "steps" and steps_per_epoch is None:
        return math.nan
    run = {"steps": epochs * (steps_per_epoch or 1), "epochs": epochs, "%": 100}
    return duration.value / run[duration.unit]


def _refuse(key: str, duration: Duration, reason: str) -> NoReturn:
    raise UserError(f"schedule.{key}={duration}: {reason}; shorten it or raise train.epochs")


def gate_temperature(model: Model, step: int, steps_per_epoch: int, total: int) -> float:
    """The temperature of a network's softmax gates at a step; 1 where it has none.

    It falls linearly from `gate.temperature` at step 0 to 1 after `gate.anneal`, and stays there
    (Chen et al., "Dynamic Convolution", arXiv 1912.03458, section 4).

    Args:
        model: The network.
        step: From 0 to `total - 1`.
        steps_per_epoch: Steps in one epoch.
        total: Steps in the whole run.
    """
    if not isinstance(model, AttentionCnnModel) or model.gate.name != "softmax":
        return 1.0
    anneal = to_steps(model.gate.anneal, steps_per_epoch, total)
    left = max(1 - step / anneal, 0.0) if anneal else 0.0
    return 1.0 + (model.gate.temperature - 1.0) * left
