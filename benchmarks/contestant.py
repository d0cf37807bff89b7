"""Those that take turns: processes that stay warm, and what else our own one can train."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any, NoReturn

from benchmarks.rival import figures
from fasttrain.errors import UserError

OURS = "ours"
_GRACE = 20  # seconds that a contestant has to end
_SHOWN = 200  # characters of a line that is no result


class LostError(Exception):
    """A contestant is of no use any more; the message says why."""


class Contestant:
    """A process that trains once for every seed it is told.

    Args:
        name: Of the contestant.
        command: Its command line; no shell reads it.

    Raises:
        LostError: it cannot be started.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        try:
            # The command is the user's own, or our own module.
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                encoding="utf-8", errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise LostError(f"it cannot be started: {error}") from error

    def warm_up(self) -> None:
        """Wait until it is ready.

        Raises:
            LostError: it ended before.
        """
        while self._line() != "ready":
            pass

    def train(self, seed: int, variant: str = "") -> dict[str, Any]:
        """Let it train once; return what it says of it.

        Args:
            seed: Of the run.
            variant: Of our own trainer alone; see `Variant`.

        Raises:
            LostError: it ended, or says something that is no result.
        """
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            self._process.stdin.write(f"{seed} {variant}".rstrip() + "\n")
            self._process.stdin.flush()
        except OSError:
            self._lose("it ended")
        while True:
            line = self._line()
            said = _json_object(line)
            if said is not None:
                found = figures(said) or self._lose(
                    f"'{line[:_SHOWN]}' is no result, with the numbers 'accuracy' and 'seconds'"
                )
                return {**said, **found}

    def _line(self) -> str:
        """The next line it prints."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        line = self._process.stdout.readline()
        return line.strip() if line else self._lose("it ended")

    def _lose(self, reason: str) -> NoReturn:
        raise LostError(f"{reason} (exit code {self.stop()})")

    def stop(self) -> int:
        """Let it end, or end it; return its exit code."""
        if self._process.returncode is None:  # not stopped before
            try:
                self._process.communicate(timeout=_GRACE)  # closes its input
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
        return self._process.returncode


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Variant:
    """Our own recipe with other settings, in the process that trains it without them.

    Args:
        name: By which the process knows it.
        process: Our own trainer, warm.
    """

    def __init__(self, name: str, process: Contestant) -> None:
        self.name, self._process = name, process

    def train(self, seed: int) -> dict[str, Any]:
        """As `Contestant.train`."""
        return self._process.train(seed, self.name)


def variants(given: Sequence[str]) -> dict[str, list[str]]:
    """Read `NAME=KEY.PATH=VALUE ...` for every variant of our own.

    Raises:
        UserError: a name is taken or no word, or nothing is changed.
    """
    found = {name: _words("--variant", changes) for name, changes in _named("--variant", given)}
    for name in found:
        if not re.fullmatch(r"[\w.-]*\w", name):
            raise UserError(
                f"--variant: '{name}' is no name; choose letters, digits, '.', '-', '_'"
            )
    return found


def rivals(given: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Read `NAME=COMMAND` for every rival.

    Raises:
        UserError: there is no name or command, one that is taken, or a program that is not there.
    """
    found = dict(_named("--rival", given, taken))
    for name, command in found.items():
        if shutil.which(program := _words("--rival", command)[0]) is None:
            raise UserError(f"--rival: there is no program '{program}' for {name}")
    return found


def _named(option: str, given: Sequence[str], taken: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Names and what each stands for; every name is there once."""
    found: dict[str, str] = {}
    for one in given:
        name, _, value = (part.strip() for part in one.partition("="))
        if not name or not value:
            wanted = "COMMAND" if option == "--rival" else "KEY.PATH=VALUE"
            raise UserError(f"{option}: '{one}' is not NAME={wanted}")
        if name in (OURS, *taken, *found):
            raise UserError(f"{option}: there is another '{name}'; choose another name")
        found[name] = value
    return list(found.items())


def _words(option: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option}: '{text}' cannot be read: {error}") from error
