"""The command line of the benchmarks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from benchmarks import record
from fasttrain.cli import Group

if TYPE_CHECKING:
    from benchmarks.contest import Contestant

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure, print a table, and keep a record of every repetition."""
    # The compiler looks for CUDA wherever its tools are installed, and warns in vain.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


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


def _of_runs(command: Callable[..., Any]) -> Callable[..., Any]:
    seeds = click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
    keep = click.option(
        "--keep", type=_FOLDER, help="Where the runs stay; runs begun there are finished."
    )
    return seeds(keep(_common(command)))


@contextmanager
def _kept(keep: Path | None) -> Iterator[Path]:
    """The folder of the runs; without one asked for they are not kept."""
    if keep is not None:
        yield keep
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


@main.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True), required=True)
@click.argument("overrides", nargs=-1, metavar="[KEY.PATH=VALUE]...")
@_of_runs
def accuracy(
    config: Path,
    overrides: tuple[str, ...],
    seeds: int,
    keep: Path | None,
    quick: bool,
    records: Path,
) -> None:
    """What a recipe reaches over several seeds, and how long it takes."""
    from benchmarks.accuracy import measure

    with _kept(keep) as folder:
        outcome = measure(config, overrides, seeds, quick, folder)
    _conclude(outcome, f"accuracy-{config.stem}", quick, records)


@main.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True), required=True)
@_common
def checkpoint(config: Path, quick: bool, records: Path) -> None:
    """What a checkpoint every 100 steps costs."""
    from benchmarks.checkpoint import measure

    _conclude(measure(config, quick), "checkpoint", quick, records)


@main.command()
@click.option("--epochs", type=click.IntRange(1), default=3, show_default=True)
@_of_runs
def ladder(epochs: int, **options: Any) -> None:
    """Whether every stage is above the one before it, at a reduced number of epochs."""
    from benchmarks.contest import LADDER

    _contest("ladder", LADDER, epochs, **options)


@main.command()
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True)
@_of_runs
def control(epochs: int, **options: Any) -> None:
    """One branch, uniform weights, learned attention: equal parameters and multiply-adds."""
    from benchmarks.contest import CONTROL

    _contest("control", CONTROL, epochs, **options)


def _contest(
    name: str,
    contestants: tuple[Contestant, ...],
    epochs: int,
    seeds: int,
    keep: Path | None,
    quick: bool,
    records: Path,
) -> None:
    from benchmarks import contest

    if quick:
        seeds, epochs = 1, 1
    with _kept(keep) as folder:
        outcome = contest.measure(f"the {name}", contestants, seeds, epochs, folder)
    contest.show(outcome)
    for line in contest.steps(outcome):
        click.echo(line)
    click.echo(f"record: {record.save(outcome, name, quick, records)}")


if __name__ == "__main__":
    main()
