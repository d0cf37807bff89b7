"""Our contestant of `benchmarks.turns`: one process that trains again and again, once a seed.

    python -m benchmarks.trainer CONFIG [KEY=VALUE]... --keep FOLDER \
        [--variant 'NAME=KEY=VALUE ...']...

It gets warm with a whole run of the recipe and of each variant, and prints `ready`. For each seed
that it reads, a line each, with a variant's name or without, it trains as `fasttrain train` does
and prints a line of JSON: `accuracy`, as a share, with the views of the test pictures that the
recipe wants; `seconds`, by the clock of cifar10-airbench; and where they went.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import click
import torch
import torch._dynamo.config
from rich.console import Console

from benchmarks.contestant import variants
from fasttrain import garbage
from fasttrain.config import Config, load
from fasttrain.errors import FasttrainError
from fasttrain.files import check_writable
from fasttrain.redact import redact
from fasttrain.training.run import run

_GRAPHS = 64
_WARM_UP = 10**6  # a seed that nobody is measured with
_PHASES = (
    "train_seconds",
    "evaluate_seconds",
    "initialize_seconds",
    "compile_seconds",
    "total_seconds",
    "images_per_second",
)


def clock(result: Mapping[str, Any]) -> float:
    """Seconds of a run as the field counts them: all but loading the data set and compiling.

    Building the network, whitening, augmentation, training and the evaluations count. What a run
    does before its second step counts as part of compilation: beside the first step, whose time is
    put back at that of a later one, planning an epoch, augmenting the first group of batches and
    recording graphs. `total_seconds`, which begin when loader and network are built and leave
    nothing out from then on, stand beside it.

    Args:
        result: What `result.json` holds.
    """
    counted = ("train_seconds", "evaluate_seconds", "initialize_seconds")
    first_step = result["batch_size"] / result["images_per_second"]
    return float(sum(result[name] for name in counted) + first_step)


@contextmanager
def compiled_once() -> Iterator[None]:
    """Let this process's runs, which are all alike, share the graphs that the first one compiled.

    A run ends with `torch.compiler.reset`, so that other runs find room for theirs: torch keeps
    eight graphs of a function, and what comes after them runs uncompiled. Here there is nothing
    else, and every run would compile anew. Should it come to more than `_GRAPHS` after all, the
    process fails: to go on uncompiled would look like a slow recipe.
    """
    with (
        patch.object(torch.compiler, "reset", lambda: None),
        patch.object(torch._dynamo.config, "fail_on_recompile_limit_hit", True),
        patch.object(torch._dynamo.config, "recompile_limit", _GRAPHS),
    ):
        yield


def train(config: Config, seed: int, folder: Path) -> dict[str, float]:
    """Train once, in `folder`; what a contestant says of it, and where the time went."""
    settings = config.model_copy(update={"seed": seed})
    # Standard output is for results alone.
    with redirect_stdout(sys.stderr), garbage.postponed():
        _, result = run(settings, folder, console=Console(stderr=True, quiet=True))
    gc.collect()  # now, not within the next run: what this one had on the GPU is free for it
    return {
        "accuracy": result["test_accuracy"],
        "seconds": clock(result),
        **{name: result[name] for name in _PHASES},
    }


def serve(recipes: Mapping[str, Config], keep: Path) -> None:
    """Get warm, say so, and train with every seed that is read, until there are no more.

    Args:
        recipes: By the name that follows a seed; one has none.
        keep: Where the runs stay.
    """
    check_writable(keep)
    keep.mkdir(parents=True, exist_ok=True)
    with compiled_once():
        for config in recipes.values():
            with TemporaryDirectory(dir=keep) as folder:
                train(config, _WARM_UP, Path(folder) / "warm-up")
        print("ready", flush=True)
        for line in sys.stdin:
            seed, _, name = line.strip().partition(" ")
            found = train(recipes[name], int(seed), keep / name / f"seed{seed}")
            print(json.dumps(found), flush=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=click.Path(path_type=Path, exists=True))
@click.argument("overrides", nargs=-1, metavar="[KEY.PATH=VALUE]...")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="Where the runs stay; none of the same seeds may be there.",
)  # fmt: skip
@click.option("--variant", "given", multiple=True, help="Another recipe: NAME=KEY.PATH=VALUE ...")
def main(config: Path, overrides: tuple[str, ...], keep: Path, given: tuple[str, ...]) -> None:
    """Get warm, print `ready`, then train once for every seed on standard input."""
    try:
        recipes = {"": load(config, overrides)}
        for name, changes in variants(given).items():
            recipes[name] = load(config, [*overrides, *changes])
        serve(recipes, keep)
    except FasttrainError as error:
        click.echo(redact(f"benchmarks.trainer: {error}"), err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
