"""The terminal: a live line while a run goes, and a line that stays for every evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from fasttrain.config import Config
from fasttrain.observe.journal import Record, Sink, speed
from fasttrain.times import roughly

_BAR_WIDTH = 20
_SECONDS_BETWEEN_LINES = 30


class Screen(Console):
    """Standard error, where a run is watched: who looks no more ends the showing, not the run."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(stderr=True, markup=False, quiet=quiet)

    def on_broken_pipe(self) -> None:
        """A pager was left, or `tee` has died; rich itself would end the process."""
        self.quiet = True


class ProgressLine(Sink):
    """Shows where a run stands, from the journal's records.

    Args:
        config: The run's configuration.
        total: Steps of the whole run.
        console: Where to write; a terminal gets a live line.
    """

    def __init__(self, config: Config, total: int, console: Console) -> None:
        self._epochs, self._batch_size = config.train.epochs, config.data.batch_size
        self._total = total
        self._told = time.monotonic()
        # Where and when the first record came: before it, code was compiled.
        self._since: tuple[int, float] | None = None
        self._console = console
        self._train: list[Record] = []  # since the last evaluation
        self._live = Live(console=console, auto_refresh=False, transient=True)
        if console.is_terminal:
            self._live.start()
            if config.train.compile:
                told = "waiting for the first figures; compiling can take minutes"
                self._live.update(Text(told, no_wrap=True, overflow="ellipsis"), refresh=True)

    def show(self, record: Record) -> None:
        """Redraw the line; keep a line for every evaluation."""
        if record["kind"] == "train":
            self._train.append(record)
            self._show_line(record)
        elif record["kind"] == "rollback":
            self._console.print(
                f"diverged at step {record['step']}: back to the weights of step {record['to']}, "
                "on behind the bad batch",
                highlight=False,
                soft_wrap=True,
            )
        else:
            self._console.print(self._evaluation_line(record), highlight=False, soft_wrap=True)
            self._train = []

    def close(self) -> None:
        """Take the live line away; what was printed stays."""
        self._live.stop()

    def _show_line(self, record: Record) -> None:
        """Redraw the live line; without a terminal write one now and then, so that it is alive."""
        if self._live.is_started:
            self._live.update(self._line(record), refresh=True)
        elif time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self._console.print(self._line(record), highlight=False, soft_wrap=True)

    def _line(self, record: Record) -> Text:
        """Epoch, bar, time left, loss, accuracy, images/s, waiting for data."""
        done = record["step"] / self._total
        parts = [
            f"epoch {record['epoch']}/{self._epochs}",
            f"{roughly(self._seconds_left(record))} left",
            _figures(record),
        ]
        width = min(_BAR_WIDTH, self._console.width - len("  ".join(parts)) - len("   100%"))
        if width > 0:  # the bar gives way to the figures
            filled = round(done * width)
            parts.insert(1, "━" * filled + "┄" * (width - filled) + f" {done:4.0%}")
        return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")

    def _evaluation_line(self, record: Record) -> str:
        found = f"{record['split']}: loss {record['loss']:.3f}  accuracy {record['accuracy']:.2%}"
        if record["split"] == "test" or not self._train:
            return found
        return f"epoch {record['epoch']}/{self._epochs}  {_figures(_mean(self._train))}  {found}"

    def _seconds_left(self, record: Record) -> float:
        """By all the time since the first record; at that one by the speed it tells."""
        now, left = time.monotonic(), float(self._total - record["step"])
        if self._since is None:
            self._since = record["step"], now
        done, seconds = record["step"] - self._since[0], now - self._since[1]
        rate: float = record["images_per_second"] / self._batch_size
        return left * seconds / done if done else left / max(rate, 1e-9)


@contextmanager
def working(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on a terminal for what is being prepared; yields `show(what, done, total)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    silent = not console.is_terminal  # elsewhere a bar would leave empty lines
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=silent,
        redirect_stdout=False,  # it would end up on the console's stream, not in the user's file
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield show


def _mean(records: list[Record]) -> Record:
    """One record for the steps of several."""
    steps = sum(record["steps"] for record in records)
    rate, stall = speed(records)
    means = {
        name: sum(rec["steps"] * rec[name] for rec in records) / steps
        for name in ("loss", "accuracy")
    }
    return {**means, "images_per_second": rate, "data_stall": stall}


def _figures(record: Record) -> str:
    return (
        f"loss {record['loss']:.3f}  accuracy {record['accuracy']:6.2%}  "
        f"{record['images_per_second']:,.0f} images/s  data {record['data_stall']:4.1%}"
    )
