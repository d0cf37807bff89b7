"""A recipe and its rivals in turn, on a GPU: every one in a process that is warm already.

There, starting a process and compiling take far longer than the two seconds of a training run. So
each contestant is one process for all its runs. It gets warm by itself (imports, data, compiling)
and prints the line `ready`. For every seed it reads, a line each, it trains once and prints one
line, a JSON object with `accuracy`, as a share and with its views of the test pictures, and
`seconds`, on its own clock. It has to flush what it prints; lines that are no JSON object may say
anything. It ends when its standard input does.

Contestants get warm one after the other, so that none tunes its kernels beside another's work.
Then all train with seed 0, all with seed 1, and so on; who is first changes with every seed.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import click

from benchmarks.record import Outcome
from benchmarks.rival import figures
from fasttrain.config import load
from fasttrain.errors import UserError
from fasttrain.files import check_writable, explain_write_errors

_OURS = "ours"
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

    def train(self, seed: int) -> dict[str, Any]:
        """Let it train once; return what it says of it.

        Raises:
            LostError: it ended, or says something that is no result.
        """
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            self._process.stdin.write(f"{seed}\n")
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


def named(rivals: Sequence[str]) -> dict[str, str]:
    """Read `NAME=COMMAND` for every rival.

    Raises:
        UserError: there is no name or command, one that is taken, or a program that is not there.
    """
    found: dict[str, str] = {}
    for rival in rivals:
        name, _, command = (part.strip() for part in rival.partition("="))
        if not name or not command:
            raise UserError(f"--rival: '{rival}' is not NAME=COMMAND")
        if name == _OURS or name in found:
            raise UserError(f"--rival: there is another '{name}'; choose another name")
        if shutil.which(program := _words(command)[0]) is None:
            raise UserError(f"--rival: there is no program '{program}' for {name}")
        found[name] = command
    return found


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UserError(f"--rival: '{command}' cannot be read: {error}") from error


def measure(
    config: Path,
    overrides: Sequence[str],
    seeds: int,
    keep: Path,
    rivals: Mapping[str, str],
    minutes: float | None = None,
) -> Outcome:
    """Train `config` and its rivals once for each seed from 0, in turn.

    A rival that ends, or says something that is no result, is left out from there on.

    Args:
        config: The recipe.
        overrides: What is changed in it.
        seeds: How many.
        keep: A folder; every result is added to its `turns.jsonl` as soon as it is there.
        rivals: The command line of each, by name.
        minutes: From the start; later no new round begins.

    Raises:
        UserError: our own process ends, or there was no time for one round.
    """
    over = time.monotonic() + (60 * minutes if minutes else math.inf)
    settings = load(config, overrides)
    check_writable(keep)
    keep.mkdir(parents=True, exist_ok=True)
    began = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    # No process goes on with another one's runs, so each call has a folder of its own for them.
    commands = {_OURS: trainer(config, overrides, keep / f"ours-{began}")}
    commands |= {name: _words(command) for name, command in rivals.items()}
    with ExitStack() as held:
        contestants = _ready(commands, held)
        lines = _rounds(contestants, seeds, over, keep / "turns.jsonl", began)
    if not lines:
        raise UserError("--minutes: the time was over before the first round; allow for more")
    runs = _compared(lines, rivals)
    recipe = " ".join([settings.name, *overrides])
    count = len(runs["accuracy"])
    return Outcome(
        title=f"{recipe}, {settings.train.epochs} epochs, {count} seeds, in turn",
        unit="accuracy as a share, seconds",
        runs=runs,
        settings={**settings.model_dump(mode="json"), "rivals": dict(rivals)},
        details=lines,
        units={name: _unit(name) for name in runs},
    )


def trainer(config: Path, overrides: Sequence[str], keep: Path) -> list[str]:
    """The command line of our own contestant."""
    words = [str(config), *overrides, "--keep", str(keep)]
    return [sys.executable, "-m", "benchmarks.trainer", *words]


def _ready(commands: Mapping[str, Sequence[str]], held: ExitStack) -> list[Contestant]:
    """Start one after the other, each when the one before is ready; `held` ends them."""
    ready = []
    for name, command in commands.items():
        start = time.monotonic()
        try:
            contestant = Contestant(name, command)
            held.callback(contestant.stop)
            contestant.warm_up()
        except LostError as lost:
            _leave_out(name, lost)
        else:
            click.echo(f"{name}: ready after {time.monotonic() - start:.0f} s", err=True)
            ready.append(contestant)
    return ready


def _rounds(
    contestants: Sequence[Contestant], seeds: int, over: float, path: Path, began: str
) -> list[dict[str, Any]]:
    """Let everyone train once a seed; every result, which is written down at once."""
    left, lines = list(contestants), []
    for seed in range(seeds):
        if time.monotonic() > over:
            break
        first = seed % len(left)
        for turn, contestant in enumerate(left[first:] + left[:first]):
            try:
                found = contestant.train(seed)
            except LostError as lost:
                _leave_out(contestant.name, lost)
                left.remove(contestant)
                continue
            place = {"contestant": contestant.name, "seed": seed, "turn": turn, "began": began}
            lines.append({**found, **place})
            with explain_write_errors(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    return lines


def _leave_out(name: str, lost: LostError) -> None:
    if name == _OURS:
        raise UserError(f"our own trainer is lost: {lost}") from lost
    click.echo(f"{name} is left out from here on: {lost}", err=True)


def _compared(lines: Sequence[dict[str, Any]], rivals: Mapping[str, str]) -> dict[str, list[float]]:
    """Everyone's figures, and our seconds over each rival's, seed by seed.

    A rival that was lost has fewer seeds than we have, one that never was ready is not there.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["contestant"], {})[line["seed"]] = line
    ours = found[_OURS]
    runs = {figure: [line[figure] for line in ours.values()] for figure in ("accuracy", "seconds")}
    for name in rivals:
        if theirs := found.get(name):
            for figure in ("accuracy", "seconds"):
                runs[f"{name} {figure}"] = [line[figure] for line in theirs.values()]
            runs[f"{_OURS} over {name}"] = [
                ours[seed]["seconds"] / line["seconds"] for seed, line in theirs.items()
            ]
    return runs


def _unit(name: str) -> str:
    """Of a figure; a rival's name may hold anything, so the ratio is told by its beginning."""
    if name.startswith(f"{_OURS} over "):
        return "ours over theirs"
    return "share" if name.endswith("accuracy") else "seconds"
