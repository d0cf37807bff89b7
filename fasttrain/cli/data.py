"""Data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fasttrain.cli.group import PATH, main, overridable


@main.group()
def data() -> None:
    """Prepare a data set, say what is there, or show what the model will see."""


@data.command()
@click.argument("config", type=PATH)
@overridable
def prepare(config: Path, overrides: tuple[str, ...]) -> None:
    """Prepare the data set that CONFIG names, so that training starts at once."""
    click.echo(f"ready: {_open_store(config, overrides).folder}")


@data.command()
@click.argument("config", type=PATH)
@overridable
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
    Console(markup=False).print(summary(rows, title=store.name), highlight=False)


@data.command()
@click.argument("config", type=PATH)
@overridable
@click.option("-o", "--output", type=PATH, default="preview.png", show_default=True)
@click.option("--pictures", type=click.IntRange(1, 100), default=8, show_default=True)
@click.option("--epochs", type=click.IntRange(1, 100), default=10, show_default=True)
def preview(
    config: Path, overrides: tuple[str, ...], output: Path, pictures: int, epochs: int
) -> None:
    """Draw a few training pictures as the first epochs of CONFIG show them to the model."""
    from fasttrain.config import load

    settings = load(config, overrides)
    from fasttrain.use.preview import preview as draw

    draw(settings, output, pictures, epochs)
    click.echo(f"written: {output}")


def _open_store(config: Path, overrides: tuple[str, ...]) -> Any:
    from rich.console import Console

    from fasttrain.config import load
    from fasttrain.data.sources import open_dataset
    from fasttrain.observe.progress import working

    settings = load(config, overrides)
    with working(Console(stderr=True, markup=False)) as progress:
        return open_dataset(settings.data, progress)
