"""Weights & Biases beside the run: a process that follows the journal, and cannot hold it up."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from rich.console import Console

from fasttrain.config import Track
from fasttrain.files import read_json
from fasttrain.observe.following import Follower
from fasttrain.redact import redact

STATUS = "status.json"  # in the folder of W&B's files: how the follower fares
_PATIENCE = 60.0  # seconds that the end of a run waits for the last figures to be sent


class WandbSink(Follower):
    """The process that sends the journal to Weights & Biases.

    Whatever happens to it, to the network or to the server, training neither waits nor stops, and
    the figures are in the journal.

    Args:
        track: How to connect.
        folder: The run folder; W&B's files go to its subfolder `wandb`.
        console: Where the end is told, in one line.
    """

    def __init__(self, track: Track, folder: Path, console: Console) -> None:
        self._folder, self._console = folder, console
        self._status = folder / "wandb" / STATUS
        self._status.unlink(missing_ok=True)
        words = [track.wandb, redact(track.project), str(folder)]
        # By itself wandb calls its maker's server even offline, to say how it was used.
        silence = {"WANDB_ERROR_REPORTING": os.environ.get("WANDB_ERROR_REPORTING", "false")}
        super().__init__(
            "fasttrain.observe.wandb", words, _PATIENCE, {**silence, "WANDB_SILENT": "true"}
        )

    def close(self) -> None:
        """Let what is left be sent, but not for ever; say how to send it later."""
        super().close()
        line = self._conclusion()
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _conclusion(self) -> str:
        none = {"mode": None, "done": False, "reason": "it did not start"}
        status = read_json(self._status) or none
        if status["done"] and status["mode"] == "online":
            return f"W&B: {status['url']}"
        kept = sorted((self._folder / "wandb").glob("*run-*"))
        command = shlex.join(["wandb", "sync", *map(str, kept)])
        later = f"to send it later: {command}" if kept else "the figures are in metrics.jsonl"
        reason = f" ({status['reason']})" if status["reason"] else ""
        how = "offline" if status["done"] else "not finished"
        return f"W&B: {how}{reason}; {later}"
