"""A recipe and its rivals in turn, on a GPU: every one in a process that is warm already.

There, starting a process and compiling take far longer than the two seconds of a training run. So
each contestant is one process for all its runs. It gets warm by itself (imports, data, compiling)
and prints the line `ready`. For every seed it reads, a line each, it trains once and prints one
line, a JSON object with `accuracy`, as a share and with its views of the test pictures, and
`seconds`, on its own clock. It has to flush what it prints; lines that are no JSON object may say
anything. It ends when its standard input does.

Contestants get warm one after the other, so that none tunes its kernels beside another's work.
Then all train with seed 0, all with seed 1, and so on; who is first changes with every seed.

Variants of the recipe, which have other settings, take turns, too. Our own process trains them
all, so that what they have in common is compiled once.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from benchmarks import energy
from benchmarks.contestant import OURS, Contestant, LostError, Variant
from benchmarks.record import Outcome
from fasttrain.config import load
from fasttrain.errors import UserError
from fasttrain.files import check_writable, explain_write_errors

Line = dict[str, Any]
# Joules are those of a whole run, with what its clock leaves out.
_FIGURES = {"accuracy": "share", "seconds": "seconds", "joules": "joules"}


def measure(
    config: Path,
    overrides: Sequence[str],
    seeds: int,
    keep: Path,
    rivals: Mapping[str, str],
    minutes: float | None = None,
    variants: Mapping[str, Sequence[str]] | None = None,
) -> Outcome:
    """Train `config`, its variants and its rivals once for each seed from 0, in turn.

    A rival that ends, or says something that is no result, is left out from there on.

    Args:
        config: The recipe.
        overrides: What is changed in it.
        seeds: How many.
        keep: A folder; every result is added to its `turns.jsonl` as soon as it is there.
        rivals: The command line of each, by name.
        minutes: From the start; later no new round begins but the first.
        variants: What each of them changes besides, by name.

    Raises:
        UserError: a setting is wrong, or our own process ends.
    """
    variants = variants or {}
    over = time.monotonic() + (60 * minutes if minutes else math.inf)
    settings = load(config, overrides)
    for changes in variants.values():
        load(config, [*overrides, *changes])
    check_writable(keep)
    keep.mkdir(parents=True, exist_ok=True)
    began = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    # No process goes on with another one's runs, so each call has a folder of its own for them.
    commands = {OURS: trainer(config, overrides, keep / f"ours-{began}", variants)}
    commands |= {name: shlex.split(command) for name, command in rivals.items()}
    with ExitStack() as held:
        ours, *others = _ready(commands, held)
        own = [Variant(name, ours) for name in variants]
        contestants: list[Contestant | Variant] = [ours, *own, *others]
        lines = _rounds(contestants, seeds, over, keep / "turns.jsonl", began)
    runs = _compared(lines, rivals, variants)
    recipe = " ".join([settings.name, *overrides])
    count = len(runs["accuracy"])
    return Outcome(
        title=f"{recipe}, {settings.train.epochs} epochs, {count} seeds, in turn",
        unit="accuracy as a share, seconds",
        runs=runs,
        settings={
            **settings.model_dump(mode="json"),
            "variants": {name: list(changes) for name, changes in variants.items()},
            "rivals": dict(rivals),
        },
        details=lines,
        units={name: _unit(name, variants) for name in runs},
    )


def trainer(
    config: Path, overrides: Sequence[str], keep: Path, variants: Mapping[str, Sequence[str]]
) -> list[str]:
    """The command line of our own contestant."""
    words = [str(config), *overrides, "--keep", str(keep)]
    for name, changes in variants.items():
        words += ["--variant", f"{name}={shlex.join(changes)}"]
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
    contestants: Sequence[Contestant | Variant], seeds: int, over: float, path: Path, began: str
) -> list[Line]:
    """Let everyone train once a seed; every result, which is written down at once."""
    left = list(contestants)
    lines: list[Line] = []
    for seed in range(seeds):
        if lines and time.monotonic() > over:
            break
        first = seed % len(left)
        for turn, contestant in enumerate(left[first:] + left[:first]):
            before = energy.joules()
            try:
                found = contestant.train(seed)
            except LostError as lost:
                # With a variant the process of all of ours is gone.
                _leave_out(OURS if isinstance(contestant, Variant) else contestant.name, lost)
                left.remove(contestant)
                continue
            place = {"contestant": contestant.name, "seed": seed, "turn": turn, "began": began}
            drawn = energy.between(before, energy.joules())
            lines.append({**found, **({} if drawn is None else {"joules": drawn}), **place})
            with explain_write_errors(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    return lines


def _leave_out(name: str, lost: LostError) -> None:
    if name == OURS:
        raise UserError(f"our own trainer is lost: {lost}") from lost
    click.echo(f"{name} is left out from here on: {lost}", err=True)


def _compared(
    lines: Sequence[Line], rivals: Mapping[str, str], variants: Mapping[str, Sequence[str]]
) -> dict[str, list[float]]:
    """Everyone's figures, and our seconds over each rival's, seed by seed.

    A rival that was lost has fewer seeds than we have, one that never was ready is not there.
    """
    found: dict[str, dict[int, Line]] = {}
    for line in lines:
        found.setdefault(line["contestant"], {})[line["seed"]] = line
    figures = [name for name in _FIGURES if all(name in line for line in lines)]
    runs = {figure: [line[figure] for line in found[OURS].values()] for figure in figures}
    for name in (*variants, *rivals):
        if theirs := found.get(name):
            for figure in figures:
                runs[f"{name} {figure}"] = [line[figure] for line in theirs.values()]
    for name in rivals:
        for each in (OURS, *variants):
            pairs = [(found[each][seed], line) for seed, line in found.get(name, {}).items()]
            if pairs:
                ratios = [own["seconds"] / line["seconds"] for own, line in pairs]
                runs[f"{each} over {name}"] = ratios
    return runs


def _unit(name: str, variants: Mapping[str, Sequence[str]]) -> str:
    """Of a figure; a rival's name may hold anything, so the ratio is told by its beginning."""
    if any(name.startswith(f"{each} over ") for each in (OURS, *variants)):
        return "ours over theirs"
    return _FIGURES[name.split()[-1]]
