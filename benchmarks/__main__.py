"""The command line of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import record

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure, print a table, and keep a record of every repetition."""


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    quick = click.option("--quick", is_flag=True, help="A first look: too short for quoting.")
    records = click.option("--records", type=_FOLDER, default=record.FOLDER, help="Records folder.")
    return quick(records(command))


def _conclude(outcome: record.Outcome, name: str, quick: bool, records: Path) -> None:
    record.show(outcome)
    click.echo(f"record: {record.save(outcome, name, quick, records)}")


@main.command()
@_common
def loaders(quick: bool, records: Path) -> None:
    """Images/s of each loader beside torchvision's."""
    from benchmarks.loaders import measure

    _conclude(measure(quick), "loaders", quick, records)


@main.command()
@_common
def augment(quick: bool, records: Path) -> None:
    """Every augmentation: how alike the loaders are, how fast, what its plan costs."""
    from benchmarks.augment import measure, show

    outcome = measure(quick)
    show(outcome)
    click.echo(f"record: {record.save(outcome, 'augment', quick, records)}")


@main.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@_common
def accuracy(config: Path, seeds: int, quick: bool, records: Path) -> None:
    """What a recipe reaches over several seeds, and how long it takes."""
    from benchmarks.accuracy import measure

    _conclude(measure(config, seeds, quick), f"accuracy-{config.stem}", quick, records)


main()
