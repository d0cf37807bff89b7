"""Runs that go on until they are told to stop, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from fasttrain.observe import journal
from tests.distributed.launching import CPU_CONFIG, HANGS_AFTER

RUN = ("-m", "fasttrain", "train", "run.yaml", "--run-dir", "run", "--resume")
ENDLESS = {
    "data": {"dataset": "shapes", "batch_size": 12, "validation": 0, "loader": "resident"},
    "model": {"widths": [4], "norm": "none"},
    "train": {
        "epochs": 100_000, "device": "cpu", "precision": "fp32", "compile": False,
        "deterministic": True, "log_every": "5steps", "evaluate_every": "100%",
    },
    "checkpoint": {"every": "20steps"},
}  # fmt: skip


def launched(processes: int, *options: str) -> list[str]:
    """The command line of `accelerate launch` with so many processes."""
    tool = str(Path(sys.executable).parent / "accelerate")
    if processes == 1:
        kind = ("--cpu", "--num_processes", "1")
    else:
        kind = ("--config_file", str(CPU_CONFIG), "--num_processes", str(processes))
    return [tool, "launch", *kind, "--main_process_port", "0", *options, *RUN]


def torchrun(processes: int, *options: str) -> list[str]:
    """The command line of torchrun with so many processes."""
    tool = str(Path(sys.executable).parent / "torchrun")
    return [tool, "--standalone", "--nproc_per_node", str(processes), *options, *RUN]


PLAIN = [sys.executable, *RUN]


class Run:
    """A run in `folder`, started by a command."""

    def __init__(self, folder: Path, settings: dict[str, Any], command: Sequence[str]) -> None:
        self.folder, self._command = folder, list(command)
        (folder / "run.yaml").write_text(json.dumps(settings))  # JSON is YAML, too
        self._log = (folder / "log.txt").open("ab")

    def start(self, **environment: str) -> Run:
        self.process = subprocess.Popen(
            self._command, cwd=self.folder, stdout=self._log, stderr=self._log,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        return self

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.alive():
            process.kill()
        self._log.close()

    def alive(self) -> list[psutil.Process]:
        """All processes that work in the folder, orphaned or not; ranks have own sessions."""
        found = []
        for process in psutil.process_iter():
            try:
                ended = process.status() == psutil.STATUS_ZOMBIE
                if not ended and Path(process.cwd()) == self.folder:
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found

    def ranks(self) -> list[psutil.Process]:
        """The processes that train, in the order they were started."""
        trainers = [one for one in self.alive() if "fasttrain" in one.cmdline()[:4]]
        return sorted(trainers, key=lambda one: one.pid)

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    @property
    def outcome(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run" / "outcome.json").read_text())
        return found

    def steps(self) -> int:
        """The last step that the journal holds."""
        records = journal.read(self.folder / "run" / "metrics.jsonl")
        return records[-1]["step"] if records else 0

    def wait_until(self, happened: Callable[[], bool], seconds: float = HANGS_AFTER) -> None:
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, self.log
            time.sleep(0.05)

    def wait_until_trained(self, steps: int) -> None:
        self.wait_until(lambda: self.steps() >= steps)

    def wait_until_gone(self, seconds: float = HANGS_AFTER) -> int:
        """Until no process is left in the folder; return the exit code of the first."""
        self.wait_until(lambda: self.process.poll() is not None and not self.alive(), seconds)
        return self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """To the process that was started, as a scheduler does it."""
        os.kill(self.process.pid, number)
