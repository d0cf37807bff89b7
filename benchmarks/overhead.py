"""fasttrain's loop over a loop that anyone would write by hand, with the same parts.

Both train the same network on the same batches from the same loader, with the same optimiser,
compiler and precision, for the same number of steps, by turns; what a recipe adds to that (a moving
average, a schedule, clipping, accumulation, progressive resizing) is left out. Neither counts the
first step, in which code is generated. fasttrain logs, votes, and looks after checkpoints
meanwhile; the loop by hand does nothing but train. The report, which a process of its own draws,
is left out: in a run of seconds its start would be most of what is measured.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from benchmarks.record import Outcome
from fasttrain.config import Config, load
from fasttrain.config.augment import mixes
from fasttrain.data import sources
from fasttrain.errors import UserError
from fasttrain.runtime import Runtime
from fasttrain.training import optim, parts
from fasttrain.training.run import run

PLAIN = (
    "train.epochs=1", "train.compile=true", "train.ema=null", "train.clip_norm=null",
    "train.accumulate=1", "train.resize=[]", "schedule={name: constant}", "data.validation=0",
    "track.report=false",
)  # fmt: skip
OURS, BY_HAND = "fasttrain", "by hand"


def measure(config: Path, overrides: tuple[str, ...], quick: bool) -> Outcome:
    """Train one epoch each way, by turns; images/s."""
    repetitions = 2 if quick else 7
    base = load(config, [*overrides, *PLAIN])
    if mixes(base.data.augment):
        raise UserError("the loop by hand does not mix pictures; leave mixup and cutmix out")
    runs: dict[str, list[float]] = {BY_HAND: [], OURS: []}
    for repetition in range(repetitions):
        ways = [(BY_HAND, by_hand), (OURS, ours)]
        for name, train in ways[:: 1 if repetition % 2 else -1]:
            torch.compiler.reset()  # what earlier turns compiled would be looked through each step
            runs[name].append(train(base))
    return Outcome(
        title=f"one epoch of {config.stem}",
        unit="images/s",
        runs=runs,
        settings=base.model_dump(mode="json"),
        baseline=BY_HAND,
    )


def ours(config: Config) -> float:
    """A whole run; what its own clock says of the training."""
    with tempfile.TemporaryDirectory() as folder:
        _, result = run(config, Path(folder) / "run", console=Console(quiet=True))
    return float(result["images_per_second"])


def by_hand(config: Config) -> float:
    """The loop of a script."""
    runtime = Runtime(config.train)
    store = sources.open_dataset(config.data)
    plan = parts.training_plan(config, store)
    loader, _ = parts.training_loader(config, store, plan, runtime)
    model = parts.build_model(config, store, runtime)
    optimizer = optim.build(config.optim, model)
    forward = torch.compile(model, dynamic=False)
    smoothing = config.train.label_smoothing
    losses = []
    model.train()
    for step, pictures in enumerate(loader.batches(0, plan.steps_per_epoch)):
        with runtime.autocast():
            logits = forward(pictures.images)
        loss: Tensor = F.cross_entropy(logits.float(), pictures.labels, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if step == 0:
            runtime.synchronize()
            start = time.perf_counter()
    runtime.synchronize()
    seconds = time.perf_counter() - start
    loader.close()
    runtime.close()
    if not torch.stack(losses).isfinite().all():
        raise UserError("the loop by hand has diverged; lower optim.lr")
    return (plan.steps_per_epoch - 1) * config.data.batch_size / seconds
