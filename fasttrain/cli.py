"""The commands: parse, call, print.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fasttrain.errors import FasttrainError

_PATH = click.Path(path_type=Path)


class _Group(click.Group):
    """Ends every expected failure with one line and its exit code, and never a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except FasttrainError as error:
            world, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
            place = f" (rank {rank})" if world != "1" else ""
            click.echo(f"fasttrain{place}: {error}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fasttrain")
def main() -> None:
    """Train CIFAR-10-class image classifiers as fast as the hardware allows."""


def _overrides(command: Callable[..., None]) -> Callable[..., None]:
    return click.argument("overrides", nargs=-1, metavar="[KEY.PATH=VALUE]...")(command)


@main.command()
@click.argument("config", type=_PATH)
@_overrides
@click.option("--run-dir", type=_PATH, help="Folder to write; by default a new one in runs/.")
@click.option("--resume", is_flag=True, help="Go on with the run in --run-dir.")
def train(config: Path, overrides: tuple[str, ...], run_dir: Path | None, resume: bool) -> None:
    """Train as CONFIG says; KEY.PATH=VALUE changes a setting, such as train.epochs=20."""
    from fasttrain.config import load

    settings = load(config, overrides)
    from fasttrain.training.loop import run

    folder, result = run(settings, run_dir, resume)
    if os.environ.get("RANK", "0") == "0":
        _print_result(folder.path, result)


def _print_result(folder: Path, result: dict[str, Any]) -> None:
    from rich.console import Console

    from fasttrain.observe.progress import summary

    rows = {
        "test accuracy": f"{result['test_accuracy']:.2%} of {result['test_count']:,} pictures",
        "validation accuracy": _percent(result["val_accuracy"]),
        "training": f"{result['train_seconds']:.1f} s, {result['images_per_second']:,.0f} images/s",
        "waiting for data": f"{result['data_stall']:.1%} of it",
        "besides": f"compile {result['compile_seconds']:.1f} s, "
        f"evaluation {result['evaluate_seconds']:.1f} s, "
        f"checkpoints {result['checkpoint_seconds']:.1f} s",
    }
    console = Console()
    console.print(summary(rows, title=str(folder)), highlight=False)
    console.print(f"next: fasttrain evaluate {folder}", highlight=False)


def _percent(share: float | None) -> str:
    return "none held out" if share is None else f"{share:.2%}"


@main.command()
@click.argument("run", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(run: Path, as_json: bool) -> None:
    """Score the newest checkpoint of RUN on the test set."""
    import json

    from fasttrain.use.evaluate import evaluate as score_run

    report = score_run(run)
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        click.echo(json.dumps(report))
    else:
        click.echo(
            f"{report['checkpoint']}: test accuracy {report['accuracy']:.2%}, "
            f"loss {report['loss']:.4f}, {report['count']:,} pictures"
        )


@main.command()
@click.argument("config", type=_PATH)
@_overrides
def model(config: Path, overrides: tuple[str, ...]) -> None:
    """Show the layers of CONFIG's network, and what training it costs."""
    from rich.console import Console

    from fasttrain.config import load

    settings = load(config, overrides)
    from fasttrain.data.outline import outline
    from fasttrain.use.describe import describe

    Console().print(describe(settings, outline(settings.data)), highlight=False)


@main.group()
def data() -> None:
    """Prepare a data set, or say what is there."""


@data.command()
@click.argument("config", type=_PATH)
@_overrides
def prepare(config: Path, overrides: tuple[str, ...]) -> None:
    """Prepare the data set that CONFIG names, so that training starts at once."""
    click.echo(f"ready: {_open_store(config, overrides).folder}")


@data.command()
@click.argument("config", type=_PATH)
@_overrides
def info(config: Path, overrides: tuple[str, ...]) -> None:
    """Show what the data set that CONFIG names holds."""
    from rich.console import Console

    from fasttrain.observe.progress import summary

    store = _open_store(config, overrides)
    height, width = store.size
    rows = {
        "folder": str(store.folder),
        "pictures": f"{len(store.train.labels):,} training, {len(store.test.labels):,} test, "
        f"{height} x {width} pixels",
        "classes": f"{len(store.classes)}: {', '.join(store.classes)}",
        "mean": ", ".join(f"{value:.4f}" for value in store.mean) + " of 255",
        "deviation": ", ".join(f"{value:.4f}" for value in store.std) + " of 255",
        "checksums": "hold",
    }
    Console().print(summary(rows, title=store.name), highlight=False)


def _open_store(config: Path, overrides: tuple[str, ...]) -> Any:
    from rich.console import Console

    from fasttrain.config import load
    from fasttrain.data.sources import open_dataset
    from fasttrain.observe.progress import working

    settings = load(config, overrides)
    with working(Console(stderr=True)) as progress:
        return open_dataset(settings.data, progress)


@main.command()
def doctor() -> None:
    """Show what will be used on this machine, and what is missing."""
    from rich.console import Console

    from fasttrain.doctor import examine

    Console().print(examine(), highlight=False)
