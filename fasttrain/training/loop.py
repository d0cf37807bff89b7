"""A run, from its configuration to its result."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from fasttrain import models
from fasttrain.config import Config, Duration
from fasttrain.data import sources
from fasttrain.data.store import Store
from fasttrain.errors import DivergedError, UserError
from fasttrain.observe import folder as folders
from fasttrain.observe import journal
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.journal import Journal, Sink
from fasttrain.observe.progress import ProgressLine, working
from fasttrain.observe.wandb import WandbSink
from fasttrain.runtime import Runtime
from fasttrain.training import checkpoint, checks, optim, parts, schedule
from fasttrain.training.average import Average
from fasttrain.training.clock import Clock, Readout
from fasttrain.training.evaluate import Evaluation, Evaluator, Score
from fasttrain.training.schedule import Rates, gate_temperature, is_due, to_steps
from fasttrain.training.step import TrainingStep


def run(
    config: Config,
    run_dir: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> tuple[RunFolder, dict[str, Any]]:
    """Train as configured; return the run folder and what its `result.json` holds.

    Args:
        config: The run.
        run_dir: Where to write; by default a new folder under `runs/`.
        resume: Go on with the run in `run_dir`, from its newest whole checkpoint.
        console: Where progress is shown; by default standard error.

    Raises:
        UserError: the configuration cannot be run here.
        DivergedError: the loss is not a finite number any more.
    """
    parts.check(config)
    runtime = Runtime(config.train)
    try:
        parts.check_world(config, runtime.world)
        if console is None or not runtime.is_main:
            console = Console(stderr=True, markup=False, quiet=not runtime.is_main)
        folder = runtime.on_main(lambda: folders.choose(config, run_dir, resume))
        with working(console) as progress:
            store = sources.open_dataset(config.data, progress)
        models.check(config.model, store.size)
        return folder, Training(config, runtime, store, folder, console).run(resume)
    finally:
        runtime.close()


class Training:
    """One run's parts, and the loop over them.

    Args:
        config: The run.
        runtime: Where it runs.
        store: The data set.
        folder: Where the main rank writes.
        console: Where the main rank shows progress.
    """

    def __init__(
        self, config: Config, runtime: Runtime, store: Store, folder: RunFolder, console: Console
    ) -> None:
        self.config, self.runtime, self.store = config, runtime, store
        self.folder, self.console = folder, console
        self.plan = parts.training_plan(config, store)
        self.total = config.train.epochs * self.plan.steps_per_epoch
        odd = checks.oddities(config, self.plan.steps_per_epoch)
        odd += schedule.check(config.schedule, config.train.epochs, self.plan.steps_per_epoch)
        for line in odd:
            console.print(f"warning: {line}", highlight=False, soft_wrap=True)
        self.loader, reason = parts.training_loader(config, store, self.plan, runtime)
        self.model = parts.build_model(config, store, runtime)
        self.optimizer = optim.build(config.optim, self.model)
        self.average = Average(self.model, config.train.ema) if config.train.ema else None
        self.step = TrainingStep(
            self.model, self.optimizer, runtime, config.train, config.seed, self.average
        )
        self.evaluator = Evaluator(self.average.model if self.average else self.model, runtime)
        self.clock, self.readout = Clock(), Readout()
        self.scores: dict[str, Score] = {}
        self._validation = parts.validation_split(config, store)
        self._evaluations: dict[str, Evaluation] = {}
        self._rates = Rates(config.schedule, self.plan.steps_per_epoch, self.total)
        self._saved = time.monotonic()
        self._where = (
            f"{runtime.world} x {runtime.device.type}, {config.train.precision}, "
            f"{'compiled' if runtime.compile else 'not compiled'}, "
            f"loader {self.loader.name} ({reason})"
        )

    def run(self, resume: bool) -> dict[str, Any]:
        """Train from the start or the newest checkpoint to the end; return the result."""
        began = time.perf_counter()
        first = self._restore() if resume else 0
        self.journal = self._open_journal(first)
        try:
            self._train(first)
            self._evaluate(self.total, "test")
        finally:
            self.journal.close()
            for loader in (self.loader, *(done.loader for done in self._evaluations.values())):
                loader.close()
        result = self._result(time.perf_counter() - began)
        if self.runtime.is_main:
            self.folder.finish(result)
        return result

    def _train(self, first: int) -> None:
        """Every step of the run, and what is due after it."""
        config, clock, total = self.config, self.clock, self.total
        log_every = self._steps(config.train.log_every)
        evaluate_every = self._steps(config.train.evaluate_every)

        self.model.train()
        batches = self.loader.batches(first, total)
        clock.start()
        for done in range(first + 1, total + 1):
            compiled = done > first + 1
            pictures = next(batches)
            clock.lap("data" if compiled else "compile")
            models.set_temperature(self.model, self._temperature(done - 1))
            factor = self._rates(done - 1)
            self.step(done - 1, pictures, factor)
            clock.lap("train" if compiled else "compile")
            clock.images += config.data.batch_size if compiled else 0

            if is_due(done, log_every, total) or done % self.plan.steps_per_epoch == 0:
                self._log(done, config.optim.lr * factor)
            if is_due(done, evaluate_every, total):
                self._settle()
                self._evaluate(done, "validation")
            if self._checkpoint_is_due(done):
                self._settle()
                self._save(done)
        self._settle()

    def _log(self, done: int, rate: float) -> None:
        """Start to bring the counters to the host, and write those that have arrived."""
        label = {"step": done, "epoch": self._epoch(done), "lr": rate, **self.clock.interval()}
        totals = self.runtime.sum(self.step.take_totals())
        totals[:2] /= totals[2]
        self.readout.push(label, totals)
        self._write_arrived()
        self.clock.lap("train")

    def _settle(self) -> None:
        """Wait for the device, so that what it still had to do counts as training."""
        self.runtime.synchronize()
        self._write_arrived(wait=True)
        self.clock.lap("train")

    def _write_arrived(self, wait: bool = False) -> None:
        for label, (loss, accuracy, pictures) in self.readout.arrived(wait):
            self._check_finite(loss, int(label["step"]))
            means = {"loss": loss, "accuracy": accuracy}
            steps = round(pictures / self.config.data.batch_size)
            self.journal.write({"kind": "train", "steps": steps, **means, **label})

    def _check_finite(self, loss: float, done: int) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"training has diverged: the loss is {loss} at step {done}; "
                f"lower optim.lr (now {self.config.optim.lr:g}) or lengthen schedule.warmup"
            )

    def _evaluate(self, done: int, split: Literal["validation", "test"]) -> None:
        """Score the model on a split; there may be no validation split."""
        pictures = self.store.test if split == "test" else self._validation
        if not len(pictures.labels):
            return
        if split not in self._evaluations:
            self._evaluations[split] = parts.evaluation_pass(
                self.config, self.store, pictures, self.runtime
            )
        evaluation = self._evaluations[split]
        self.evaluator.warm_up(evaluation, self.store.size)
        self.clock.lap("compile")
        score = self.evaluator(evaluation)
        self._check_finite(score.loss, done)
        self.model.train()
        self.scores[split] = score
        place = {"kind": "evaluation", "step": done, "epoch": self._epoch(done), "split": split}
        self.journal.write({**place, **asdict(score)})
        self.clock.lap("evaluate")

    def _checkpoint_is_due(self, done: int) -> bool:
        every = self.config.checkpoint.every
        if not self.runtime.is_main:
            return False
        if every is None:
            return done == self.total
        if every.unit == "min":
            return done == self.total or time.monotonic() - self._saved >= 60 * every.value
        return is_due(done, self._steps(every), self.total)

    def _save(self, done: int) -> None:
        """Write a checkpoint; the data needs no state but the step."""
        if not all(weights.isfinite().all() for weights in self.model.parameters()):
            self._check_finite(math.nan, done)  # nothing that diverged replaces a good checkpoint
        state = {
            "step": done,
            "plan": self.plan.fingerprint(),
            "data": self.store.digest,
            "optimizer": self.optimizer.state_dict(),
            "clock": self.clock.state(),
            "totals": self.step.totals,
        }
        keep, averaged = self.config.checkpoint.keep, self.average.model if self.average else None
        checkpoint.save(self.folder.checkpoints, done, self.model, state, keep, averaged)
        self._saved = time.monotonic()
        self.clock.lap("checkpoint")

    def _restore(self) -> int:
        """Take everything up from the newest whole checkpoint; return the steps already done."""
        newest, passed_over = self.runtime.on_main(
            lambda: checkpoint.newest(self.folder.checkpoints)
        )
        for reason in passed_over:
            self.console.print(f"passed over {reason}", highlight=False, soft_wrap=True)
        if newest is None:
            self.console.print("there is no checkpoint yet: starts from the beginning")
            return 0
        state = checkpoint.load_state(newest)
        if (state["plan"], state["data"]) != (self.plan.fingerprint(), self.store.digest):
            raise UserError(
                f"{newest} was trained on other batches (data or seed has changed); "
                "resume with the run's own config.yaml and data"
            )
        self._take_up(newest, state)
        return int(state["step"])

    def _take_up(self, folder: Path, state: dict[str, Any]) -> None:
        """Put everything back as it was when the checkpoint was written."""
        checkpoint.load_weights(folder, self.model)
        if self.average:
            checkpoint.load_weights(folder, self.average.model, averaged=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.clock.restore(state["clock"])
        self.scores = self._scores_so_far(state["step"])
        if self.runtime.is_main:  # what the main rank had counted; the others count from here
            self.step.totals.copy_(state["totals"])

    def _scores_so_far(self, done: int) -> dict[str, Score]:
        """The last validation score that the journal holds up to step number `done`."""
        return {
            record["split"]: Score(record["loss"], record["accuracy"], record["count"])
            for record in journal.read(self.folder.journal)
            if record["kind"] == "evaluation" and record["step"] <= done
        }

    def _open_journal(self, first: int) -> Journal:
        """Begin the run folder, or cut its journal back to where the run goes on."""
        if not self.runtime.is_main:
            return Journal(None)
        self.folder.begin(self.config)
        journal.cut_back(self.folder.journal, first)
        sinks: list[Sink] = [ProgressLine(self.config, first, self.total, self.console)]
        if self.config.track.wandb != "disabled":
            sinks.append(WandbSink(self.config, self.folder.path, self.console))
        start = f"goes on at step {first}" if first else f"{self.total} steps"
        self.console.print(
            f"{self.folder.path}: {start}; {self._where}", highlight=False, soft_wrap=True
        )
        return Journal(self.folder.journal, sinks)

    def _result(self, seconds: float) -> dict[str, Any]:
        """What the run came to; every figure of time says what it leaves out (see `Clock`)."""
        clock, validation = self.clock, self.scores.get("validation")
        return {
            "test_accuracy": self.scores["test"].accuracy,
            "test_loss": self.scores["test"].loss,
            "test_count": self.scores["test"].count,
            "val_accuracy": validation.accuracy if validation else None,
            "val_loss": validation.loss if validation else None,
            "epochs": self.config.train.epochs,
            "steps": self.total,
            "batch_size": self.config.data.batch_size,
            "images_per_second": clock.images_per_second,
            "data_stall": clock.data_stall,
            "train_seconds": clock.train_seconds,
            "compile_seconds": clock.seconds["compile"],
            "evaluate_seconds": clock.seconds["evaluate"],
            "checkpoint_seconds": clock.seconds["checkpoint"],
            "total_seconds": seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "loader": self.loader.name,
            "device": self.runtime.device.type,
            "world": self.runtime.world,
            "plan": self.plan.fingerprint(),
            "data": self.store.digest,
        }

    def _steps(self, duration: Duration) -> int:
        return to_steps(duration, self.plan.steps_per_epoch, self.total)

    def _temperature(self, step: int) -> float:
        return gate_temperature(self.config.model, step, self.plan.steps_per_epoch, self.total)

    def _epoch(self, done: int) -> int:
        """The epoch that step number `done` belongs to, counted from 1."""
        return -(-done // self.plan.steps_per_epoch)
