"""The command line of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import loaders, record

_MEASURES = {"loaders": loaders.measure}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", type=click.Choice(sorted(_MEASURES)))
@click.option("--quick", is_flag=True, help="A small setting, for a first look: not for quoting.")
@click.option(
    "--records",
    type=click.Path(path_type=Path, file_okay=False),
    default=record.FOLDER,
    help="Folder of the JSON records.",
)
def main(name: str, quick: bool, records: Path) -> None:
    """Measure NAME, print a table, and keep a record of every repetition."""
    outcome = _MEASURES[name](quick)
    record.show(outcome)
    path = record.save(outcome, name, quick, records)
    click.echo(f"record: {path}")


main()
