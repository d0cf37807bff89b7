"""What is legal but odd: said once, before a run starts."""

from __future__ import annotations

from fasttrain.config import AttentionCnnModel, Config, Train
from fasttrain.training.schedule import to_steps

_FEW = 16  # pictures, fewer of which make poor statistics and leave most of a device idle


def oddities(config: Config, steps_per_epoch: int) -> list[str]:
    """Settings that have no effect, or hardly the one that was meant; one line for each."""
    total = config.train.epochs * steps_per_epoch
    found = _of_resizing(config.train, steps_per_epoch, total)
    if isinstance(config.model, AttentionCnnModel):
        found += _of_branches(config.model)
        found += _of_annealing(config.model, steps_per_epoch, total)
    return found


def of_precision(precision: str, imitated: bool) -> list[str]:
    """bfloat16 where it costs more than it brings: `imitated` by a CPU that has none."""
    if precision != "bf16" or not imitated:
        return []
    return ["train.precision=bf16: this CPU imitates it; train.precision=fp32 is faster here"]


def of_slices(batch_size: int, world: int) -> list[str]:
    """A batch that was meant for fewer processes."""
    slice_size = batch_size // world
    if world == 1 or slice_size >= _FEW:
        return []
    return [
        f"data.batch_size={batch_size} is that of all {world} processes together: each takes "
        f"{slice_size} pictures, few for its speed and for batch norm; choose "
        f"{_FEW * world} or more, and a learning rate to match"
    ]


def _of_resizing(train: Train, steps_per_epoch: int, total: int) -> list[str]:
    if not train.resize or to_steps(train.resize[-1].until, steps_per_epoch, total) < total:
        return []
    return [
        f"train.resize: the last size lasts until {train.resize[-1].until}, the run's end: "
        "nothing is trained on whole pictures"
    ]


def _of_branches(model: AttentionCnnModel) -> list[str]:
    if model.branches > 1 or model.gate.name not in ("softmax", "sigmoid"):
        return []
    return [f"model.gate.name={model.gate.name} weights a single branch; gate: none is simpler"]


def _of_annealing(model: AttentionCnnModel, steps_per_epoch: int, total: int) -> list[str]:
    gate = model.gate
    if gate.name != "softmax" or gate.temperature == 1:
        return []
    if to_steps(gate.anneal, steps_per_epoch, total) <= total:
        return []
    return [
        f"model.gate.anneal={gate.anneal} is longer than the run: "
        "the temperature does not come down to 1"
    ]
