"""The loop over a run's batches, and what is due between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from fasttrain import models
from fasttrain.config import Config
from fasttrain.data.facts import Facts
from fasttrain.data.store import Store
from fasttrain.errors import DivergedError, StoppedError
from fasttrain.interrupts import StopRequest
from fasttrain.observe import opening
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.heartbeat import Heartbeat
from fasttrain.observe.journal import Journal, Record
from fasttrain.redact import redact
from fasttrain.runtime import Runtime, cpu_imitates_bf16
from fasttrain.training import checkpoint, checks, divergence, optim, parts, result, schedule
from fasttrain.training.average import Average
from fasttrain.training.clock import Clock
from fasttrain.training.divergence import BadStepError
from fasttrain.training.figures import Figures
from fasttrain.training.gaps import Gaps
from fasttrain.training.keeping import Keeper
from fasttrain.training.saving import Saver
from fasttrain.training.scoring import Scoring, Where
from fasttrain.training.state import State
from fasttrain.training.step import TrainingStep
from fasttrain.training.timetable import Timetable
from fasttrain.watchdog import Watchdog


class Training:
    """One run's parts, and the loop over them.

    Args:
        config: The run.
        runtime: Where it runs.
        store: The data set.
        folder: Where the main rank writes.
        console: Where the main rank shows progress.
        stop: Whether this process was asked to stop.
        watchdog: Is told that the run is alive.
        heartbeat: Tells others.
        started: Is called whenever code was new: after a first step, before a first evaluation.
    """

    def __init__(
        self,
        config: Config,
        runtime: Runtime,
        store: Store,
        folder: RunFolder,
        console: Console,
        stop: StopRequest,
        watchdog: Watchdog,
        heartbeat: Heartbeat,
        started: Callable[[], None],
    ) -> None:
        self.config, self.runtime, self.store = config, runtime, store
        self.folder, self.console, self.stop, self.watchdog = folder, console, stop, watchdog
        self._heartbeat, self._started = heartbeat, started
        self.plan = parts.training_plan(config, store)
        self.timetable = Timetable(config, self.plan.steps_per_epoch)
        self.total = self.timetable.total
        odd = checks.oddities(config, self.plan.steps_per_epoch)
        imitated = runtime.device.type == "cpu" and cpu_imitates_bf16()
        odd += checks.of_precision(config.train.precision, imitated)
        odd += schedule.check(config.schedule, config.train.epochs, self.plan.steps_per_epoch)
        for line in odd:
            self._tell(f"warning: {line}")
        self.loader, reason = parts.training_loader(config, store, self.plan, runtime)
        runtime.synchronize()
        result.forget_gpu_memory(runtime.device)
        began = time.perf_counter()
        self.model = parts.build_model(config, store, runtime)
        runtime.synchronize()
        self._initialize_seconds = time.perf_counter() - began
        optimizer = optim.build(config.optim, self.model)
        average = Average(self.model, config.train.ema) if config.train.ema else None
        resizer = parts.resizer(config, store, self.plan.steps_per_epoch, runtime)
        settings = parts.in_parts(config, runtime)
        self.step = TrainingStep(
            self.model, optimizer, runtime, settings, config.seed, average, resizer
        )
        self.scoring = Scoring(
            config, store, runtime, folder, average.model if average else self.model
        )
        self.clock = Clock(Gaps() if runtime.device.type == "cuda" else None)
        self.figures = Figures(self.step, self.clock, self.plan, config.data.batch_size, runtime)
        self.state = State(
            self.model, average, optimizer, self.step, self.clock, runtime,
            self.plan.fingerprint(), store.digest,
        )  # fmt: skip
        self.saver = Saver(folder.checkpoints, config.checkpoint, self._tell)
        self.keeper = Keeper(self.state, self.saver, folder, self.timetable, runtime, self._tell)
        self._vote = runtime.vote()
        self._where = (
            f"{runtime.world} x {runtime.device.type}, {config.train.precision}, "
            f"{'compiled' if runtime.compile else 'not compiled'}, "
            f"loader {self.loader.name} ({reason})"
        )

    def run(self, resume: bool, changed: bool = False) -> dict[str, Any]:
        """Train from the start or the newest checkpoint to the end; return the result.

        Args:
            resume: Go on from the newest checkpoint.
            changed: ... also when the journal lacks something.

        Raises:
            UserError: what is there does not fit together.
            DivergedError: the loss or a gradient is not a finite number any more.
            StoppedError: a signal asked for it; a checkpoint was written.
        """
        began = time.perf_counter()
        first = self.keeper.restore() if resume else 0
        with self._closing(self._open_journal(first, changed)):
            self.clock.start()
            while True:
                try:
                    self._train_and_test(first)
                    break
                except BadStepError as bad:
                    first = self._go_back(bad.step)
            return self._finish(time.perf_counter() - began)

    def _train_and_test(self, first: int) -> None:
        validated = self.scoring.validated
        if first and self.timetable.evaluation_is_due(first) and validated(first) is None:
            self._evaluate(first, "validation")  # the run was stopped in it
            accuracy = validated(first)
            if accuracy is not None and self.runtime.is_main:
                self.saver.rate(accuracy)
        self._train(first)
        if self.keeper.saved != self.total:  # the run went back from its last step
            self._save(self.total)
        self._evaluate(self.total, "test")

    @contextmanager
    def _closing(self, opened: Journal) -> Iterator[None]:
        """Leave nothing behind that still works, however the run ends."""
        self.journal = opened
        try:
            yield
        except BaseException as error:
            if self.runtime.is_main:  # before the journal's followers look for the last time
                self.folder.fail(error)
            raise
        finally:
            self.saver.close()
            self.loader.close()
            self.scoring.close()
            self.watchdog.stop()  # whoever follows the journal may take long over its end
            self.journal.close()

    def _train(self, first: int) -> None:
        """Every step from number `first` on, and what is due after it."""
        config, clock, table, total = self.config, self.clock, self.timetable, self.total
        self.model.train()
        batches = self.loader.batches(first, total)
        clock.lap("compile")
        for done in range(first + 1, total + 1):
            compiled = done > first + 1
            pictures = next(batches)
            clock.lap("data" if compiled else "compile")
            if not compiled:
                self.step.warm_up(done - 1, pictures)
            models.set_temperature(self.model, table.temperature(done - 1))
            factor = table.factor(done - 1)
            self.step(done - 1, pictures, factor)
            if not compiled:
                self._started()
            clock.lap("train" if compiled else "compile")
            clock.images += config.data.batch_size if compiled else 0
            self.watchdog.alive(done)

            if table.log_is_due(done):
                self.figures.take(done, table.epoch(done), config.optim.lr * factor)
                self.figures.write(self.journal)
                clock.lap("train")
            if table.evaluation_is_due(done) and self.scoring.has("validation"):
                self._settle()
                self._evaluate(done, "validation")
            stop, save = self._vote(self.stop.signal is not None, self.keeper.minutes_are_over())
            if stop or self.keeper.is_due(done, save):
                self._settle()
                self._save(done)
            if stop:
                self._end_early(done)
        self._settle()

    def _settle(self) -> None:
        """Wait for the device, so that what it still had to do counts as training."""
        self.runtime.synchronize()
        self.figures.write(self.journal, wait=True)
        self.clock.lap("train")

    def _evaluate(self, done: int, split: Where) -> None:
        """Score the model on a split; there may be no validation split."""
        if not self.scoring.has(split):
            return
        self.keeper.look_for_bad_steps()  # a score would not tell which it was
        if self.scoring.warm_up(split):
            self._started()
        self.clock.lap("compile")
        epoch = self.timetable.epoch(done)
        found = self.scoring(split, done, epoch, lambda: self._abandon_if_asked(done))
        self.model.train()
        self.journal.write(found)
        self.clock.lap("evaluate")

    def _abandon_if_asked(self, done: int) -> None:
        """Between two batches of an evaluation: it is made again when the run goes on."""
        self.watchdog.alive()
        stop, _ = self._vote(self.stop.signal is not None, False)
        if stop:
            self.model.train()
            if self.keeper.saved != done:
                self._save(done)
            self._end_early(done)

    def _end_early(self, done: int) -> None:
        """End the run behind step number `done`, whose checkpoint is being written."""
        self.runtime.on_main(self.saver.wait)  # no rank leaves before it is done
        self._vote.close()
        at = f"step {done} of {self.total}"
        kept = "its checkpoint is written"
        if self.runtime.is_main and self.saver.written != checkpoint.place(
            self.folder.checkpoints, done
        ):
            kept = f"NO checkpoint of it could be written, the last is {self.saver.written}"
        name = self.stop.signal or "a signal to another rank"
        stopped = StoppedError(
            f"{name} stopped {self.folder.path} at {at}; {kept}; go on with --run-dir "
            f"{self.folder.path} --resume"
        )
        if self.runtime.is_main:  # before anything that may take long
            self.folder.conclude("stopped", stopped.exit_code, str(stopped))
            self.journal.hurry()
        raise stopped

    def _go_back(self, step: int) -> int:
        """After a bad step: the next step of a run that goes back, as often as it may.

        Raises:
            DivergedError: it may not, or there is nothing to go back to.
        """
        self.saver.wait()
        train = self.config.train
        newest, _ = self.runtime.on_main(lambda: checkpoint.newest(self.folder.checkpoints))
        rollbacks = self.state.rollbacks + 1
        if train.on_divergence != "rollback" or newest is None or rollbacks > train.rollbacks:
            raise DivergedError(self._describe_bad(step, newest.name if newest else None))
        clock = self.clock.state()
        kept = self.state.restore(newest)
        self.clock.restore(clock)
        self.state.rollbacks = rollbacks
        self.figures.forget()
        place = {"step": step + 1, "epoch": self.timetable.epoch(step + 1)}
        self.journal.write({"kind": "rollback", **place, "to": kept})
        return step + 1

    def _describe_bad(self, step: int, good: str | None) -> str:
        """What a user needs to look into a divergence; the whole batch stands in a file."""
        indices = self.plan.batch(step).indices.tolist()
        if self.runtime.is_main:
            self.folder.write_divergence({"step": step + 1, "pictures": indices, "good": good})
        return divergence.describe(step, indices, good, self.config.optim.lr)

    def _save(self, done: int) -> None:
        self.keeper.save(done, self.scoring.validated(done), self.journal)
        self.clock.lap("checkpoint")

    def _open_journal(self, first: int, changed: bool) -> Journal:
        """Begin the run folder, or cut its journal back to where the run goes on."""
        kept = self.runtime.on_main(lambda: self._begin_folder(first, changed))
        for record in kept:
            if record["kind"] == "evaluation":
                self.scoring.latest[record["split"]] = record
        if not self.runtime.is_main:
            return Journal(None)
        start = f"goes on at step {first}" if first else f"{self.total} steps"
        self._tell(f"{self.folder.path}: {start}; {self._where}")
        steps = (first, self.total)
        return opening.open_journal(
            self.config, self.folder, kept, steps, self.console, self._tell, self._heartbeat
        )

    def _begin_folder(self, first: int, changed: bool) -> list[Record]:
        kept = opening.keep(self.folder, first, self.state.journal, changed)
        self.folder.begin(self.config, kept, Facts.of(self.store).write(), first)
        return kept

    def _finish(self, seconds: float) -> dict[str, Any]:
        """Write what the run came to, when all else is on the disk."""
        self._vote.close()
        self.runtime.on_main(lambda: self.saver.finish(self.total))
        self.journal.sync()
        found = self._result(seconds)
        if self.runtime.is_main:
            self.folder.finish(found)
        return found

    def _result(self, seconds: float) -> dict[str, Any]:
        """What the run came to."""
        return {
            **result.scores(self.scoring.latest["test"], self.scoring.latest.get("validation")),
            "epochs": self.config.train.epochs,
            "steps": self.total,
            "batch_size": self.config.data.batch_size,
            "initialize_seconds": self._initialize_seconds,
            **result.figures(self.clock),
            **result.of_gpu(self.runtime.device),
            "total_seconds": seconds,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "loader": self.loader.name,
            "device": self.runtime.device.type,
            "world": self.runtime.world,
            **self.state.describe(),
        }

    def _tell(self, line: str) -> None:
        self.console.print(redact(line), highlight=False, soft_wrap=True)
