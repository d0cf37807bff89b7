"""`heartbeat.json`: a few figures by which others see, from anywhere, that a run lives."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fasttrain.config import Config
from fasttrain.errors import UserError
from fasttrain.files import read_json
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.journal import Record, Sink
from fasttrain.watchdog import Watchdog

_EVERY = 5.0  # seconds between two of them at least
_LAST = 2.0  # seconds that the end of a run waits for the last one
_TRAIN = ("images_per_second", "data_stall", "loss", "accuracy")


class Heartbeat(Sink):
    """A sink that keeps the newest figures, and writes them beside the training.

    A thread writes, and only when the loop has shown a sign of life since: a run that hangs has an
    old heartbeat. A disk that is full, or that hangs, holds up nothing.

    Args:
        folder: The run.
        config: Likewise.
        watchdog: Knows the last step, and when it was done.
    """

    def __init__(self, folder: RunFolder, config: Config, watchdog: Watchdog) -> None:
        self._folder, self._watchdog, self._epochs = folder, watchdog, config.train.epochs
        self._figures: dict[str, float | None] = dict.fromkeys((*_TRAIN, "validation_accuracy"))
        self._checkpoint: tuple[int, float] | None = None
        self._total = self._restarts = 0
        self._written: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def begin(self, first: int, total: int, kept: Sequence[Record]) -> None:
        """Start to write.

        Args:
            first: Steps that are done.
            total: Steps of the whole run.
            kept: What the journal holds already.
        """
        before = read_json(self._folder.heartbeat)
        if before is not None or first:
            self._restarts = int((before or {}).get("restarts", 0)) + 1
        self._total = total
        for record in kept:
            self.show(record)
        self._watchdog.alive(first)
        self._thread.start()

    def show(self, record: Record) -> None:
        """Keep the figures of a record."""
        if record["kind"] == "train":
            self._figures.update({name: record[name] for name in _TRAIN})
        elif record.get("split") == "validation":
            self._figures["validation_accuracy"] = record["accuracy"]

    def close(self) -> None:
        """Write the last one."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(_LAST)

    @property
    def is_stalled(self) -> bool:
        """Whether nothing has happened for longer than half the watchdog's time."""
        patience = self._watchdog.seconds
        return bool(self._total) and patience is not None and self._watchdog.idle > patience / 2

    def figures(self) -> dict[str, Any]:
        """What the file holds; `time` is that of the last sign of life, and ages are as of then.

        Rates are those of the newest record, times are Unix seconds, ages seconds; what is not
        known yet is `None`.
        """
        alive, step = time.time() - self._watchdog.idle, self._watchdog.step
        saved, written = self._checkpoint or (None, None)
        each = self._total // self._epochs or 1
        return {
            "time": alive,
            "step": step,
            "steps": self._total or None,
            "epoch": max(1, -(-step // each)),
            "epochs": self._epochs,
            **self._figures,
            "checkpoint_step": saved,
            "checkpoint_time": written,
            "checkpoint_age": None if written is None else max(0.0, alive - written),
            "restarts": self._restarts,
            "watchdog": self._watchdog.seconds,
            "pid": os.getpid(),
            "host": platform.node(),
        }

    def _beat(self) -> None:
        self._folder.sweep_heartbeat()
        self._write()
        while not self._over.wait(_EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        """Write what is new; what cannot be written now is written later."""
        alive_at = self._watchdog.alive_at
        if alive_at == self._written and not self._over.is_set():
            return
        with suppress(OSError, UserError):
            self._checkpoint = self._folder.newest_checkpoint()
            self._folder.write_heartbeat(self.figures())
            self._written = alive_at
