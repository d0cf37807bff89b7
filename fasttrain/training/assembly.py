"""All that a run is made of before its first step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fasttrain.config import Config
from fasttrain.data.loader import Loader
from fasttrain.data.plan import TrainingPlan
from fasttrain.data.store import Store
from fasttrain.observe.folder import RunFolder
from fasttrain.runtime import Runtime, cpu_imitates_bf16
from fasttrain.training import checks, optim, parts, result, schedule
from fasttrain.training.average import Average
from fasttrain.training.clock import Clock
from fasttrain.training.figures import Figures
from fasttrain.training.gaps import Gaps
from fasttrain.training.keeping import Keeper
from fasttrain.training.saving import Saver
from fasttrain.training.scoring import Scoring
from fasttrain.training.state import State
from fasttrain.training.step import TrainingStep
from fasttrain.training.timetable import Timetable


@dataclass(frozen=True)
class Assembly:
    """A run's parts, each ready for the first step.

    Attributes:
        where: What it runs on, in a few words.
        initialize_seconds: What building the network took, a look at the pictures included.
    """

    timetable: Timetable
    loader: Loader
    model: nn.Module
    step: TrainingStep
    scoring: Scoring
    clock: Clock
    figures: Figures
    state: State
    saver: Saver
    keeper: Keeper
    where: str
    initialize_seconds: float


def assemble(
    config: Config,
    runtime: Runtime,
    store: Store,
    folder: RunFolder,
    tell: Callable[[str], None],
) -> Assembly:
    """Build a run's parts; every rank calls it.

    Args:
        config: The run.
        runtime: Where it runs.
        store: The data set.
        folder: Where the main rank writes.
        tell: Shows the user a line.

    Raises:
        UserError: the settings do not fit the data, or each other.
    """
    plan = parts.training_plan(config, store)
    timetable = Timetable(config, plan.steps_per_epoch)
    for line in _oddities(config, plan, runtime):
        tell(f"warning: {line}")
    loader, reason = parts.training_loader(config, store, plan, runtime)
    model, seconds = _network(config, store, runtime)
    optimizer = optim.build(config.optim, model)
    average = Average(model, config.train.ema) if config.train.ema else None
    resizer = parts.resizer(config, store, plan.steps_per_epoch, runtime)
    settings = parts.in_parts(config, runtime)
    step = TrainingStep(model, optimizer, runtime, settings, config.seed, average, resizer)
    scoring = Scoring(config, store, runtime, average.model if average else model)
    clock = Clock(Gaps() if runtime.device.type == "cuda" else None)
    state = State(model, average, optimizer, step, clock, runtime, plan.fingerprint(), store.digest)
    saver = Saver(folder.checkpoints, config.checkpoint, tell)
    where = (
        f"{runtime.world} x {runtime.device.type}, {config.train.precision}, "
        f"{'compiled' if runtime.compile else 'not compiled'}, loader {loader.name} ({reason})"
    )
    return Assembly(
        timetable,
        loader,
        model,
        step,
        scoring,
        clock,
        Figures(step, clock, plan, runtime),
        state,
        saver,
        Keeper(config, state, saver, folder, timetable, plan, tell),
        where,
        seconds,
    )


def _oddities(config: Config, plan: TrainingPlan, runtime: Runtime) -> list[str]:
    """Settings that are legal and hardly meant."""
    imitated = runtime.device.type == "cpu" and cpu_imitates_bf16()
    return [
        *checks.oddities(config, plan.steps_per_epoch),
        *checks.of_precision(config.train.precision, imitated),
        *checks.of_slices(config.data.batch_size, runtime.world),
        *schedule.check(config.schedule, config.train.epochs, plan.steps_per_epoch),
    ]


def _network(config: Config, store: Store, runtime: Runtime) -> tuple[nn.Module, float]:
    """The network, and the seconds that it took the device to have it."""
    runtime.synchronize()
    result.forget_gpu_memory(runtime.device)
    began = time.perf_counter()
    model = parts.build_model(config, store, runtime)
    runtime.synchronize()
    return model, time.perf_counter() - began
