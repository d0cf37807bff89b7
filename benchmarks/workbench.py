"""The parts of a run, put together to be measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from fasttrain import memory
from fasttrain.config import Config
from fasttrain.data import sources
from fasttrain.data.loader import Loader, Pictures, ResolvedLoader, choose
from fasttrain.data.plan import TrainingPlan
from fasttrain.data.store import Store
from fasttrain.errors import UserError
from fasttrain.runtime import Runtime, settle_torch
from fasttrain.training import optim, parts
from fasttrain.training.average import Average
from fasttrain.training.step import TrainingStep

_LOOK = 0.1  # seconds between two looks at what the helpers do
_IDLE = 0.2  # of a processor, at most: threads that wait spin a little
_PATIENCE = 10.0  # seconds


@dataclass
class Workbench:
    """A run that is assembled and not started.

    Attributes:
        config: The run.
        store: Its data set.
        plan: Its batches.
        model: Its network, in training mode.
        step: Its training step.
        runtime: Where it runs; closed, so that several runs can be assembled.
    """

    config: Config
    store: Store
    plan: TrainingPlan
    model: nn.Module
    step: TrainingStep
    runtime: Runtime

    def loader(self) -> Loader:
        """The loader that the configuration names."""
        runtime = Runtime(self.config.train)
        loader, _ = parts.training_loader(self.config, self.store, self.plan, runtime)
        _close(runtime, self.config)
        return loader

    def batch(self) -> Pictures:
        """The run's first batch, for a step that never waits for data."""
        loader = self.loader()
        pictures = next(loader.batches(0, 1))
        loader.close()
        return pictures

    def images_per_second(self, batches: Iterator[Pictures], steps: int) -> float:
        """Train on the next `steps` batches; images/s, all of the device's work counted."""
        self.runtime.synchronize()
        start = time.perf_counter()
        for number in range(steps):
            self.step(number, next(batches), 1e-3)  # a rate at which nothing goes astray
        self.runtime.synchronize()
        return steps * self.config.data.batch_size / (time.perf_counter() - start)


def assemble(config: Config, change: Callable[[optim.Optimizers], None] | None = None) -> Workbench:
    """Put a run together; `change` may alter its optimisers before they are used.

    Raises:
        UserError: the recipe does more in a step than is measured here, or its batch cannot be cut.
    """
    if config.train.resize:
        raise UserError(
            "a step on a batch that stays the same takes it at full size; add train.resize=[]"
        )
    runtime = Runtime(config.train)
    parts.check_world(config, runtime.world)
    store = sources.open_dataset(config.data)
    plan = parts.training_plan(config, store)
    model = parts.build_model(config, store, runtime)
    optimizer = optim.build(config.optim, model)
    if change is not None:
        change(optimizer)
    average = Average(model, config.train.ema) if config.train.ema else None
    settings = parts.in_parts(config, runtime)
    step = TrainingStep(model, optimizer, runtime, settings, config.seed, average)
    _close(runtime, config)
    model.train()
    return Workbench(config, store, plan, model, step, runtime)


def _close(runtime: Runtime, config: Config) -> None:
    """Let another one follow; memory and torch's settings stay those of a run."""
    runtime.close()
    memory.keep_freed()
    settle_torch(config.train)


def installed(names: Iterable[ResolvedLoader], device: torch.device) -> list[ResolvedLoader]:
    """Those of the loaders whose packages are there."""

    def works(name: ResolvedLoader) -> bool:
        try:
            choose(name, device)
        except UserError:
            return False
        return True

    return [name for name in names if works(name)]


def rest() -> None:
    """Wait until no thread and no helper of this process works any more, but not for ever."""
    helpers = psutil.Process().children(recursive=True)
    before, deadline = -math.inf, time.monotonic() + _PATIENCE
    while (now := _processor_seconds(helpers)) - before > _IDLE * _LOOK:
        if time.monotonic() > deadline:
            return
        before = now
        time.sleep(_LOOK)


def _processor_seconds(helpers: Iterable[psutil.Process]) -> float:
    """What this process and its helpers have used so far."""
    seconds = time.process_time()
    for helper in helpers:
        with suppress(psutil.NoSuchProcess):
            times = helper.cpu_times()
            seconds += times.user + times.system
    return seconds


def enough_steps(bench: Workbench, pictures: Pictures, seconds: float) -> int:
    """How many steps take about that long, when code has been generated.

    Raises:
        RuntimeError: the step is not what was to be measured.
    """
    if problem := bench.step.warm_up(0, pictures):
        raise RuntimeError(f"the step runs without CUDA graphs: {problem}")
    for number in range(2):
        bench.step(number, pictures, 1e-3)
    rate = bench.images_per_second(iter([pictures] * 2), 2)
    return max(2, round(seconds * rate / bench.config.data.batch_size))
