"""Durations to steps, and rates as pure functions of the step."""

from __future__ import annotations

import math

from fasttrain.config import AttentionCnnModel, Duration, Model, Schedule


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


def learning_rate_factor(schedule: Schedule, step: int, warmup: int, total: int) -> float:
    """The learning rate of a step as a factor of `optim.lr`.

    It climbs linearly over the first `warmup` steps, then follows the schedule: `cosine`
    (Loshchilov and Hutter, "SGDR", arXiv 1608.03983, section 3, without restarts) and `linear`
    reach 0 after the last step.

    Args:
        schedule: Which curve.
        step: From 0 to `total - 1`.
        warmup: Steps of the climb.
        total: Steps in the whole run.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    match schedule.name:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2


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
