"""What there is: networks, this machine."""

from __future__ import annotations

import os
from pathlib import Path

import click

from fasttrain.cli.group import PATH, main, overridable
from fasttrain.errors import UserError


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
@click.option(
    "--distributed", is_flag=True, help="Under a launcher: whether its processes fit together."
)
@click.option("--config", type=PATH, help="Compare this file's settings and data on all ranks.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=60,
    show_default=True,
    help="Seconds that one process waits for the others.",
)
def doctor(distributed: bool, config: Path | None, timeout: float) -> None:
    """Show what will be used on this machine, and what is missing."""
    from rich.console import Console

    if distributed:
        _examine_together(config, timeout)
        return
    if config is not None:
        raise click.UsageError("--config needs --distributed")
    from fasttrain.doctor import examine

    Console().print(examine(), highlight=False)


def _examine_together(config: Path | None, timeout: float) -> None:
    from rich.console import Console

    from fasttrain.config import load

    settings = load(config) if config is not None else None
    # Read when torch is loaded: its stacks would bury the line that says what is wrong.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    from fasttrain.cluster import examine

    table, wrong = examine(settings, timeout)
    if table is not None:
        # A launcher's output is no terminal: the table is as wide as it is, not cut to 80 columns.
        width = None if Console().is_terminal else 200
        Console(markup=False, width=width).print(table, highlight=False)
    if wrong is not None:
        raise UserError(wrong)
