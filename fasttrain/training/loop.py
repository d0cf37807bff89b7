"""The loop over a run's batches, and what is due between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console

from fasttrain import memory, models
from fasttrain.config import Config
from fasttrain.data.facts import Facts
from fasttrain.data.loader import Pictures
from fasttrain.data.store import Store
from fasttrain.errors import StoppedError
from fasttrain.interrupts import StopRequest
from fasttrain.observe import opening
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.heartbeat import Heartbeat
from fasttrain.observe.journal import Journal, Record
from fasttrain.runtime import Runtime
from fasttrain.training import checkpoint, result
from fasttrain.training.assembly import Assembly
from fasttrain.training.divergence import BadStepError
from fasttrain.training.scoring import Where
from fasttrain.watchdog import Watchdog


class Training:
    """The loop over a run's parts.

    Args:
        config: The run.
        runtime: Where it runs.
        store: The data set.
        folder: Where the main rank writes.
        made: The parts.
        console: Where the main rank shows progress.
        tell: Shows the user a line.
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
        made: Assembly,
        console: Console,
        tell: Callable[[str], None],
        stop: StopRequest,
        watchdog: Watchdog,
        heartbeat: Heartbeat,
        started: Callable[[], None],
    ) -> None:
        self.config, self.runtime, self.store, self.folder = config, runtime, store, folder
        self.console, self.stop, self.watchdog = console, stop, watchdog
        self._made, self._tell, self._heartbeat, self._started = made, tell, heartbeat, started
        self.timetable, self.total = made.timetable, made.timetable.total
        self.loader, self.model, self.step, self.scoring = (
            made.loader, made.model, made.step, made.scoring,
        )  # fmt: skip
        self.clock, self.figures, self.saver, self.keeper = (
            made.clock, made.figures, made.saver, made.keeper,
        )  # fmt: skip
        self._vote = runtime.vote()

    def run(self, resume: bool, changed: bool) -> dict[str, Any]:
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
                    first = self._go_back(bad)
            return self._finish(time.perf_counter() - began)

    def _train_and_test(self, first: int) -> None:
        if first and self._validation_is_due(first) and self.scoring.validated(first) is None:
            accuracy = self._evaluate(first, "validation")  # the run was stopped in it
            if self.runtime.is_main:
                self.saver.rate(accuracy)
        self._train(first)
        if self.keeper.saved != self.total:  # the run went back from its last step
            self._save(self.total)
        self._evaluate(self.total, "test")

    @contextmanager
    def _closing(self, opened: Journal) -> Iterator[None]:
        """Leave nothing behind that still works, however the run ends."""
        self.journal = opened
        with ExitStack() as last:  # in the reverse order, and all of it whatever fails
            last.callback(self.journal.close)
            last.callback(self.watchdog.stop)  # the journal's followers may take long over its end
            last.callback(self.scoring.close)
            last.callback(self.loader.close)
            last.callback(self.saver.close)
            last.callback(self.step.forget)  # an error's traceback would hold it
            try:
                yield
            except BaseException as error:
                if self.runtime.is_main:  # before the journal's followers look for the last time
                    self.folder.fail(error)
                raise

    def _train(self, first: int) -> None:
        """Every step from number `first` on, and what is due after it."""
        clock, table, total = self.clock, self.timetable, self.total
        self.model.train()
        batches = self.loader.batches(first, total)
        clock.lap("compile")
        for done in range(first + 1, total + 1):
            pictures = next(batches)
            if done == first + 1:
                self._first_step(pictures, done)
            else:
                clock.lap("data")
                self._train_on(pictures, done)
                clock.lap("train")
                clock.images += self.config.data.batch_size
            self.watchdog.alive(done)

            if table.log_is_due(done):
                rate = self.config.optim.lr * table.factor(done - 1)
                self.figures.take(done, table.epoch(done), rate)
                self.figures.write(self.journal)
                clock.lap("train")
            if self._validation_is_due(done):
                self._settle()
                self._evaluate(done, "validation")
            stop, save = self._vote(self.stop.signal is not None, self.keeper.minutes_are_over())
            if stop or self.keeper.is_due(done, save):
                self._settle()
                self._save(done)
            if stop:
                self._end_early(done)
        self._settle()

    def _train_on(self, pictures: Pictures, done: int) -> None:
        """Do step number `done`, counted from 1."""
        models.set_temperature(self.model, self.timetable.temperature(done - 1))
        self.step(done - 1, pictures, self.timetable.factor(done - 1))

    def _first_step(self, pictures: Pictures, done: int) -> None:
        """One for which code is generated: none of its time counts as training."""
        if problem := self.step.warm_up(done - 1, pictures):
            self._tell(f"warning: steps run without CUDA graphs, and slower: {problem}")
        self._train_on(pictures, done)
        self.runtime.synchronize()
        self._started()
        self.clock.lap("compile")

    def _validation_is_due(self, done: int) -> bool:
        return self.scoring.has("validation") and self.timetable.evaluation_is_due(done)

    def _settle(self) -> None:
        """Wait for the device, so that what it still had to do counts as training."""
        self.runtime.synchronize()
        self.figures.write(self.journal, wait=True)
        self.clock.lap("train")

    def _evaluate(self, done: int, split: Where) -> float:
        """Score the model on a split; return its accuracy."""
        self.keeper.look_for_bad_steps()  # a score would not tell which it was
        memory.trim()  # what training has left lies in pieces, too small for other shapes
        if self.scoring.warm_up(split):
            self.runtime.synchronize()
            self._started()
        self.clock.lap("compile")
        epoch = self.timetable.epoch(done)
        found, answers = self.scoring(split, done, epoch, lambda: self._abandon_if_asked(done))
        self.model.train()
        self.clock.lap("evaluate")
        if self.runtime.is_main:
            self.folder.write_answers(split, answers)
        self.journal.write(found)
        self.clock.lap("checkpoint")
        return answers.accuracy

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
        written = self.saver.written == checkpoint.place(self.folder.checkpoints, done)
        if self.runtime.is_main and not written:
            kept = f"NO checkpoint of it could be written, the last is {self.saver.written}"
        name = self.stop.signal or "a signal to another rank"
        self.journal.hurry()
        raise StoppedError(
            f"{name} stopped {self.folder.path} at {at}; {kept}; go on with --run-dir "
            f"{self.folder.path} --resume"
        )

    def _go_back(self, bad: BadStepError) -> int:
        """After a bad step: the next step of a run that goes back, as often as it may."""
        step, kept = bad.step, self.keeper.go_back(bad)
        self.figures.forget()
        place = {"step": step + 1, "epoch": self.timetable.epoch(step + 1)}
        self.journal.write({"kind": "rollback", **place, "to": kept})
        return step + 1

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
        self._tell(f"{self.folder.path}: {start}; {self._made.where}")
        steps = (first, self.total)
        return opening.open_journal(
            self.config, self.folder, kept, steps, self.console, self._tell, self._heartbeat
        )

    def _begin_folder(self, first: int, changed: bool) -> list[Record]:
        kept = opening.keep(self.folder, first, self._made.state.journal, changed)
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
            "initialize_seconds": self._made.initialize_seconds,
            **result.figures(self.clock),
            **result.of_gpu(self.runtime.device),
            "total_seconds": seconds,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "loader": self.loader.name,
            "device": self.runtime.device.type,
            "world": self.runtime.world,
            **self._made.state.describe(),
        }
