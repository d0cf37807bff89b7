"""What there is: networks, this machine."""

from __future__ import annotations

from pathlib import Path

import click

from fasttrain.cli.group import PATH, main, overridable


@main.command()
@click.argument("config", type=PATH)
@overridable
def model(config: Path, overrides: tuple[str, ...]) -> None:
    """Show the layers of CONFIG's network, and what training it costs."""
    from rich.console import Console

    from fasttrain.config import load

    settings = load(config, overrides)
    from fasttrain.data.outline import outline
    from fasttrain.use.describe import describe

    Console().print(describe(settings, outline(settings.data)), highlight=False)


@main.command()
def doctor() -> None:
    """Show what will be used on this machine, and what is missing."""
    from rich.console import Console

    from fasttrain.doctor import examine

    Console().print(examine(), highlight=False)
