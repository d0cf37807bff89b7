"""fasttrain's loop over a loop that anyone would write by hand, with the same parts.

Both train the same network on the same batches from the same loader, with the same optimiser,
compiler and precision; what a recipe adds to that (a moving average, a schedule, clipping,
accumulation, progressive resizing) is left out. Both live in one process and take turns, so that
what else the machine does meets both. The first turn, in which code is generated, does not count.
fasttrain logs once a turn, votes, and asks what is due meanwhile; no checkpoint and no evaluation
falls into a turn. The loop by hand does nothing but train. The report, which a process of its own
draws, is left out.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from benchmarks.record import Outcome
from fasttrain.config import Config, load
from fasttrain.config.augment import mixes
from fasttrain.data import sources
from fasttrain.data.loader import Loader, Pictures
from fasttrain.data.plan import TrainingPlan
from fasttrain.data.store import Store
from fasttrain.errors import StoppedError, UserError
from fasttrain.runtime import Runtime
from fasttrain.training import optim, parts
from fasttrain.training.parts import training_loader
from fasttrain.training.run import run

PLAIN = (
    "train.compile=true", "train.cuda_graphs=false", "train.ema=null", "train.clip_norm=null",
    "train.accumulate=1",
    "train.resize=[]", "schedule={name: constant}", "data.validation=0", "track.report=false",
)  # fmt: skip
OURS, BY_HAND = "fasttrain", "by hand"
TURN = 50  # steps, after which the run writes a line of its journal
_LIMIT = 300  # seconds: then the run is asked to stop


def measure(config: Path, overrides: tuple[str, ...], quick: bool) -> Outcome:
    """Train both ways at once, by turns; images/s of each turn."""
    turns = 4 if quick else 60
    base = load(config, [*overrides, *PLAIN])
    if mixes(base.data.augment):
        raise UserError("the loop by hand does not mix pictures; leave mixup and cutmix out")
    steps = parts.training_plan(base, sources.open_dataset(base.data)).steps_per_epoch
    epochs = -(-(turns + 2) * TURN // steps)
    lasting = [
        f"train.epochs={epochs}", f"checkpoint.every={epochs}epochs", f"train.log_every={TURN}steps"
    ]  # fmt: skip
    base = load(config, [*overrides, *PLAIN, *lasting])
    pairs = side_by_side(base)
    recipe = " ".join([config.stem, *overrides])
    return Outcome(
        title=f"{recipe}, turns of {TURN} steps of {base.data.batch_size} pictures",
        unit="images/s",
        runs={BY_HAND: [hand for hand, _ in pairs], OURS: [ours for _, ours in pairs]},
        settings=base.model_dump(mode="json"),
        baseline=BY_HAND,
    )


def side_by_side(config: Config) -> list[tuple[float, float]]:
    """A whole run, in which the loop by hand goes on before each of the run's own turns.

    Returns images/s by hand and of the run, for each pair of turns.
    """
    turns: list[Turns] = []

    def loader_with_turns(
        config: Config, store: Store, plan: TrainingPlan, runtime: Runtime
    ) -> tuple[Loader, str]:
        ours, reason = training_loader(config, store, plan, runtime)
        turns.append(Turns(ours, by_hand(config, store, runtime), runtime))
        return turns[0], reason

    torch.compiler.reset()  # what was compiled before would be looked through at each step
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(parts, "training_loader", loader_with_turns),
        suppress(StoppedError),
    ):
        run(config, Path(folder) / "run", console=Console(quiet=True))
    images = TURN * config.data.batch_size
    return [(images / theirs, images / ours) for theirs, ours in turns[0].seconds]


class Turns:
    """A run's loader that lets the loop by hand go on whenever the run has had its turn.

    Args:
        loader: Gives the run's batches.
        by_hand: Makes a turn's steps whenever it is asked for the losses of the next one.
        runtime: Where both run.

    Attributes:
        seconds: By hand and of the run, for each turn but the first.
    """

    def __init__(self, loader: Loader, by_hand: Generator[list[Tensor]], runtime: Runtime) -> None:
        self._loader, self._by_hand, self._runtime = loader, by_hand, runtime
        self.name, self.ahead = loader.name, loader.ahead
        self._over = False
        self.seconds: list[tuple[float, float]] = []

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        """As the loader's; a turn reaches from one batch to the one `TURN` steps later."""
        theirs = start = began = time.perf_counter()
        for number, pictures in enumerate(self._loader.batches(first, last)):
            if number % TURN == 0:
                ours = self._since(start)
                if number > TURN:
                    self.seconds.append((theirs, ours))
                late = time.perf_counter() - began > _LIMIT
                if late and self.seconds and not self._over:
                    self._over = True
                    os.kill(os.getpid(), signal.SIGTERM)  # as a user would
                start = time.perf_counter()
                losses = next(self._by_hand)
                theirs = self._since(start)
                if not torch.stack(losses).isfinite().all():
                    raise UserError("the loop by hand has diverged; lower optim.lr")
                start = time.perf_counter()
            yield pictures

    def _since(self, start: float) -> float:
        self._runtime.synchronize()
        return time.perf_counter() - start

    def close(self) -> None:
        """End both loops' loaders."""
        with closing(self._loader):
            self._by_hand.close()


def by_hand(config: Config, store: Store, runtime: Runtime) -> Generator[list[Tensor]]:
    """The loop of a script, without an end; after each turn it hands over its losses."""
    plan = parts.training_plan(config, store)
    loader, _ = training_loader(config, store, plan, runtime)
    model = parts.build_model(config, store, runtime)
    optimizer = optim.build(config.optim, model)
    forward = torch.compile(model, dynamic=False)
    smoothing = config.train.label_smoothing
    model.train()
    losses: list[Tensor] = []
    try:
        for step, pictures in enumerate(loader.batches(0, sys.maxsize), start=1):
            with runtime.autocast():
                logits = forward(pictures.images)
            loss = F.cross_entropy(logits.float(), pictures.labels, label_smoothing=smoothing)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.update()
            optimizer.zero_grad()
            losses.append(loss.detach())
            if step % TURN == 0:
                yield losses
                losses = []
    finally:
        loader.close()
