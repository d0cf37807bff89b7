"""Follows a run's journal and sends it to Weights & Biases; a process of its own.

    python -m fasttrain.observe.wandb MODE PROJECT RUN_FOLDER

It goes on until its standard input ends, which the end of the trainer brings about, and then sends
what the journal still holds. This file holds the only import of wandb.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
import yaml
from filelock import FileLock

from fasttrain import answers
from fasttrain.files import read_json, write_text
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.following import has_ended, outlive_signals
from fasttrain.observe.journal import Record, read
from fasttrain.observe.tracking import STATUS
from fasttrain.redact import redact

_SECONDS_TO_CONNECT = 20
_BETWEEN_LOOKS = 1.0  # seconds
_CLOUD = ("api.forge.coreweave.com", "api.wandb.ai")  # its name and its former one: a key fits both


def has_key() -> bool:
    """Whether an API key is configured, in the environment or by `wandb login`; asks no server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = urlsplit(wandb.setup().settings.base_url).netloc
        logins = netrc(os.environ.get("NETRC"))
    except (OSError, ValueError, NetrcParseError):  # there are none, or they cannot be read
        return False
    return any(logins.authenticators(name) for name in (_CLOUD if host in _CLOUD else (host,)))


class Sender:
    """Sends each record of a journal once, over all the processes that a run consists of.

    Args:
        mode: `online`, `offline`, or `auto`: online where a key is configured.
        project: W&B's project.
        folder: The run folder, whose name is the run's name. Its id is drawn once: names need not
            be ids, and two folders may share one.
    """

    def __init__(self, mode: str, project: str, folder: Path) -> None:
        self._mode = ("online" if has_key() else "offline") if mode == "auto" else mode
        self._project, self._folder = project, RunFolder(folder)
        self._sent_file = folder / "wandb" / "sent.json"
        self._name = folder.resolve().name
        self._sent, self._id = 0, ""

    def follow(self, reason: str = "") -> None:
        """Send records until standard input has ended and none is left."""
        self._sent_file.parent.mkdir(exist_ok=True)
        # The follower of a trainer that was killed may still be sending what that one left.
        with FileLock(self._sent_file.with_suffix(".lock")):
            self._sent, self._id = self._taken_up()
            self._keep()
            self._tell(reason=reason)
            url = self._send()
            self._tell(reason=reason, done=True, url=url)

    def _send(self) -> str | None:
        """Send; return the address of the run where it is online."""
        with wandb.init(
            project=self._project,
            name=self._name,
            id=self._id,
            resume="allow",
            dir=str(self._folder.path),
            mode=self._mode,  # type: ignore[arg-type]  # the configuration has checked it
            config={
                **yaml.safe_load(self._folder.config.read_text()),
                "environment": read_json(self._folder.environment) or {},
            },
            settings=wandb.Settings(
                init_timeout=_SECONDS_TO_CONNECT, silent=True, console="off", program="fasttrain"
            ),
        ) as run:
            step = 0
            for records in self._new_records():
                for record in records:
                    step = record["step"]
                    run.log(figures(record, self._classes), step=step)
                self._sent += len(records)
                self._keep()
            if self._folder.result.exists():
                self._send_pictures(run, step)
            return run.url if self._mode == "online" else None

    def _taken_up(self) -> tuple[int, str]:
        """How much was sent, and under which id; a copied folder is a run of its own."""
        kept = read_json(self._sent_file)
        if kept is None or kept.get("name", self._name) != self._name:
            return 0, secrets.token_hex(8)
        # What was sent before ids were drawn went under the run's name.
        return kept.get("records", 0), kept.get("id", self._name)

    def _keep(self) -> None:
        """What is needed to go on: which run it is, and how much of it is sent."""
        kept = {"records": self._sent, "id": self._id, "name": self._name}
        write_text(self._sent_file, json.dumps(kept))

    def _send_pictures(self, run: Any, step: int) -> None:
        """What a run that is complete leaves beside its figures."""
        shown: dict[str, Any] = {}
        if (path := self._folder.answers("test")).exists():
            found = answers.load(path)
            shown["test/confusion"] = wandb.plot.confusion_matrix(
                y_true=found.label.tolist(), preds=found.predicted.tolist(),
                class_names=self._classes,
            )  # fmt: skip
        if self._folder.samples.exists():
            shown["samples"] = wandb.Image(str(self._folder.samples))
        run.log(shown, step=step)

    @property
    def _classes(self) -> list[str]:
        """The names of the classes; an old run does not keep them."""
        return list((read_json(self._folder.data) or {}).get("classes", []))

    def _new_records(self) -> Iterator[list[Record]]:
        """What the journal holds and was not sent, look by look; ends when the trainer has."""
        journal, running, size = self._folder.journal, True, 0
        while running:
            running = not has_ended(_BETWEEN_LOOKS)
            before, size = size, journal.stat().st_size if journal.exists() else 0
            if size != before and (new := read(journal)[self._sent :]):
                yield new

    def _tell(self, reason: str, done: bool = False, url: str | None = None) -> None:
        status = {"mode": self._mode, "done": done, "reason": redact(reason), "url": url}
        write_text(self._sent_file.with_name(STATUS), json.dumps(status))


def figures(record: Record, classes: Sequence[str] = ()) -> dict[str, float]:
    """A record's numbers under `train/...`, `validation/...`, `test/...` or `rollback/...`.

    The accuracy of each class goes by its name, where the names are known.
    """
    group = record.get("split", record["kind"])
    numbers = {
        f"{group}/{name}": value
        for name, value in record.items()
        if isinstance(value, int | float) and name != "step"
    }
    each = zip(classes, record.get("per_class", ()), strict=False)
    return numbers | {
        f"{group}/per_class/{name}": share for name, share in each if share is not None
    }


def main() -> None:
    """Follow; where the server cannot be had, start over offline, in a fresh process.

    wandb cannot go from online to offline within one process (its issue 9865).
    """
    outlive_signals()
    mode, project, folder, *reason = sys.argv[1:]
    untouched = dict(os.environ)  # wandb adds the address of its service, which holds the run
    try:
        Sender(mode, project, Path(folder)).follow(*reason)
    except Exception as error:
        if mode == "offline":
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        command = [sys.executable, "-m", "fasttrain.observe.wandb", "offline", project, folder]
        os.execve(sys.executable, [*command, words], untouched)  # noqa: S606 - our own module


if __name__ == "__main__":
    main()
