"""Weights & Biases as a sink: it is shown the journal and can never stop a run.

This file holds the only import of wandb.
"""

from __future__ import annotations

import os
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fasttrain.config import Config
from fasttrain.observe.journal import Record

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_TO_CONNECT = 20
_CLOUD = ("api.forge.coreweave.com", "api.wandb.ai")  # its name and its former one: a key fits both


def has_key() -> bool:
    """Whether an API key is configured, in the environment or by `wandb login`; asks no server."""
    import wandb

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = urlsplit(wandb.setup().settings.base_url).netloc
        logins = netrc(os.environ.get("NETRC"))
    except (OSError, ValueError, NetrcParseError):  # there are none, or they cannot be read
        return False
    return any(logins.authenticators(name) for name in (_CLOUD if host in _CLOUD else (host,)))


class WandbSink:
    """Sends the journal's records to Weights & Biases; trouble ends the sink, not the run.

    Args:
        config: The run's configuration; `track.wandb` says how to connect. `auto` is online
            where a key is configured and offline elsewhere.
        folder: The run folder; offline files go to its subfolder `wandb`.
        console: Where trouble is told, in one line.
    """

    def __init__(self, config: Config, folder: Path, console: Console) -> None:
        self._console = console
        self._run = None
        try:
            import wandb

            mode = config.track.wandb
            if mode == "auto":
                mode = "online" if has_key() else "offline"
            self._run = wandb.init(
                project=config.track.project,
                name=folder.name,
                id=folder.name,
                resume="allow",
                dir=str(folder),
                mode=mode,
                config=config.model_dump(mode="json"),
                settings=wandb.Settings(
                    init_timeout=_SECONDS_TO_CONNECT, silent=True, console="off"
                ),
            )
        except Exception as error:
            self._give_up(error)

    def show(self, record: Record) -> None:
        """Log a record under `train/...`, `validation/...` or `test/...` at its step."""
        if self._run is None:
            return
        group = record.get("split", record["kind"])
        figures = {
            f"{group}/{name}": value
            for name, value in record.items()
            if isinstance(value, int | float) and name != "step"
        }
        try:
            self._run.log(figures, step=record["step"])
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Send what is left."""
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        reason = " ".join(str(error).split()) or type(error).__name__
        self._console.print(
            f"W&B is left out of this run ({reason}); the figures are in metrics.jsonl",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
