"""Weights & Biases beside the run: a process that follows the journal, and cannot hold it up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from fasttrain.config import Track
from fasttrain.observe.journal import Record
from fasttrain.redact import redact

STATUS = "status.json"  # in the folder of W&B's files: how the follower fares
_PATIENCE = 60.0  # seconds that the end of a run waits for the last figures to be sent
_HURRIED = 5.0  # ... when a scheduler is about to kill it


class WandbSink:
    """Starts a process that sends the journal to Weights & Biases, and takes leave of it.

    The process reads `metrics.jsonl` and nothing else. Whatever happens to it, to the network or
    to the server, training neither waits nor stops, and the figures are in the journal. It ends
    when this process does, however that happens.

    Args:
        track: How to connect.
        folder: The run folder; W&B's files go to its subfolder `wandb`.
        console: Where the end is told, in one line.
    """

    def __init__(self, track: Track, folder: Path, console: Console) -> None:
        self._folder, self._console = folder, console
        self._patience = _PATIENCE
        self._status = folder / "wandb" / STATUS
        self._status.unlink(missing_ok=True)
        words = [track.wandb, redact(track.project), str(folder)]
        self._follower = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "fasttrain.observe.wandb", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the trainer; what it leaves in the journal is still to be sent.
            start_new_session=True,
            # By itself wandb calls its maker's server even offline, to say how it was used.
            env={"WANDB_ERROR_REPORTING": "false", **os.environ, "WANDB_SILENT": "true"},
        )

    def show(self, record: Record) -> None:
        """Nothing: the follower reads the journal by itself."""

    def hurry(self) -> None:
        """Wait only a moment for the follower."""
        self._patience = _HURRIED

    def close(self) -> None:
        """Let the follower send what is left, but not for ever; say how to send it later."""
        if self._follower.stdin is not None:
            self._follower.stdin.close()
        try:
            self._follower.wait(self._patience)
        except subprocess.TimeoutExpired:
            os.killpg(self._follower.pid, signal.SIGKILL)
        line = self._conclusion()
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _conclusion(self) -> str:
        try:
            status = json.loads(self._status.read_text())
        except (OSError, ValueError):
            status = {"mode": None, "done": False, "reason": "it did not start"}
        if status["done"] and status["mode"] == "online":
            return f"W&B: {status['url']}"
        kept = sorted((self._folder / "wandb").glob("*run-*"))
        command = f"wandb sync {' '.join(map(str, kept))}"
        later = f"to send it later: {command}" if kept else "the figures are in metrics.jsonl"
        reason = f" ({status['reason']})" if status["reason"] else ""
        how = "offline" if status["done"] else "not finished"
        return f"W&B: {how}{reason}; {later}"
