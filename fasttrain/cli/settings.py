"""What can be set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from fasttrain.cli.group import main

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from fasttrain.config.describing import Block, Setting

_DEFAULT = 16  # columns; longer ones are wrapped


@main.command()
@click.argument("section", required=False)
def config(section: str | None) -> None:
    """Show what can be set, and what each setting means.

    SECTION is data, model, optim, schedule, train, checkpoint or track, a part of one, such as
    optim.muon, model.cnn or data.augment.crop, or a setting, such as train.epochs. Without it all
    are shown. They are typed behind fasttrain train CONFIG: train.epochs=20 or, quoted for the
    shell, 'data.augment=[{name: crop, padding: 2}, flip]'.
    """
    from rich.console import Console

    from fasttrain.config.describing import describe

    console = Console(markup=False, highlight=False)
    for block in describe(section):
        console.print(*_parts(block), "", sep="\n")
    if section is None:
        click.echo("one part alone: fasttrain config SECTION, such as train or optim.muon")


def _parts(block: Block) -> Iterator[RenderableType]:
    """What chooses a section, what it is for, and its settings."""
    from rich.padding import Padding
    from rich.text import Text

    if block.title:
        homes = f"  with {' or '.join(block.homes)}" if block.homes else ""
        yield Text.assemble((block.title, "bold"), (homes, "dim"))
    if block.about:
        yield _marked(block.about)
    if block.settings:
        yield Padding(_table(block.settings), (0, 0, 0, 2))


def _table(settings: Iterable[Setting]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("setting", no_wrap=True, style="bold cyan")
    table.add_column("default", max_width=_DEFAULT)
    table.add_column("what it takes, and what it means")
    for each in settings:
        default = "below" if each.kind == "section" else each.default or "must be set"
        about = Text.assemble((each.kind, "italic"), "\n", _marked(each.meaning))
        table.add_row(each.key, default, about)
    return table


def _marked(text: str) -> Text:
    """What is typed, between backticks, in the colour of the settings."""
    from rich.text import Text

    marked = Text(text)
    marked.highlight_regex("`[^`]+`", "cyan")
    return marked
