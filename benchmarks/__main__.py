"""The command line of the benchmarks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from benchmarks import record
from fasttrain.cli import Group
from fasttrain.errors import UserError
from fasttrain.files import write_text
from fasttrain.observe import environment

if TYPE_CHECKING:
    from benchmarks.competitors import Strength
    from benchmarks.contest import Contestant

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Measure, print a table, and keep a record of every repetition."""
    context.obj = environment.commit()  # now: the tree may change while something is measured
    # The compiler looks for CUDA wherever its tools are installed, and warns in vain.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    quick = click.option("--quick", is_flag=True, help="A first look: too short for quoting.")
    records = click.option("--records", type=_FOLDER, default=record.FOLDER, help="Records folder.")
    return quick(records(command))


def _conclude(outcome: record.Outcome, name: str, quick: bool, records: Path) -> None:
    record.show(outcome)
    _keep(outcome, name, quick, records)


def _keep(outcome: record.Outcome, name: str, quick: bool, records: Path) -> None:
    """Write the record, and a picture of it beside it."""
    commit = click.get_current_context().obj
    path = record.save(outcome, name, quick, commit, records)
    from benchmarks.plot import draw

    draw(outcome, path.with_suffix(".svg"))
    click.echo(f"record: {path}")


@main.command()
@click.option("--augment", type=click.Choice(["light", "heavy"]), default="light")
@click.option("--batch", type=click.IntRange(1, 50_000), default=512, show_default=True)
@click.option(
    "--workers", multiple=True, type=click.IntRange(0), default=(2,), show_default=True,
    help="Helper processes of the competitors; may be repeated.",
)  # fmt: skip
@_common
def loaders(
    augment: Strength, batch: int, workers: tuple[int, ...], quick: bool, records: Path
) -> None:
    """Images/s of each loader beside torchvision's and timm's."""
    from benchmarks.loaders import measure

    outcome = measure(quick, augment, batch, workers)
    _conclude(outcome, f"loaders-{augment}-{batch}", quick, records)


@main.command()
@_common
def augment(quick: bool, records: Path) -> None:
    """Every augmentation: how alike the loaders are, how fast, what its plan costs."""
    from benchmarks.augment import measure, show

    outcome = measure(quick)
    show(outcome)
    _keep(outcome, "augment", quick, records)


def _of_a_recipe(command: Callable[..., Any]) -> Callable[..., Any]:
    config = click.option("--config", type=click.Path(path_type=Path, exists=True), required=True)
    overrides = click.argument("overrides", nargs=-1, metavar="[KEY.PATH=VALUE]...")
    return config(overrides(_common(command)))


def _name(benchmark: str, config: Path, overrides: tuple[str, ...]) -> str:
    """Of a record; one of another network or precision does not take the place of the recipe's."""
    from fasttrain.config import load

    wanted, own = (load(config, words) for words in (overrides, ()))
    words = [benchmark, config.stem]
    if wanted.model.family != own.model.family:
        words.append(wanted.model.family)
    if wanted.train.precision != own.train.precision:
        words.append(wanted.train.precision)
    return "-".join(words)


@main.command()
@_of_a_recipe
def step(config: Path, overrides: tuple[str, ...], quick: bool, records: Path) -> None:
    """One training step, from eager fp32 to everything on, and its share of the machine."""
    from benchmarks.step import measure, shares

    outcome = measure(config, overrides, quick)
    _conclude(outcome, _name("step", config, overrides), quick, records)
    for line in shares(outcome):
        click.echo(line)


@main.command()
@_of_a_recipe
def train(config: Path, overrides: tuple[str, ...], quick: bool, records: Path) -> None:
    """Training with each loader over the same step on a fixed batch: what data costs."""
    from benchmarks.throughput import measure

    _conclude(measure(config, overrides, quick), _name("train", config, overrides), quick, records)


@main.command()
@_of_a_recipe
def overhead(config: Path, overrides: tuple[str, ...], quick: bool, records: Path) -> None:
    """Fasttrain's loop over one written by hand."""
    from benchmarks.overhead import measure

    found = measure(config, overrides, quick)
    _conclude(found, _name("overhead", config, overrides), quick, records)


@main.command()
@_of_a_recipe
def startup(config: Path, overrides: tuple[str, ...], quick: bool, records: Path) -> None:
    """Seconds from a process's start to its first step: cold, warm, and moved elsewhere."""
    from benchmarks.startup import measure

    found = measure(config, overrides, quick)
    _conclude(found, _name("startup", config, overrides), quick, records)


@main.command()
@click.option("--keep", type=_FOLDER, help="Where the runs stay; runs begun there are finished.")
@_of_a_recipe
def memory(
    config: Path, overrides: tuple[str, ...], keep: Path | None, quick: bool, records: Path
) -> None:
    """Training with and without keeping the memory that is freed."""
    from benchmarks.memory import measure

    with _kept(keep) as folder:
        found = measure(config, overrides, quick, folder)
    _conclude(found, _name("memory", config, overrides), quick, records)


@main.command()
@click.option("--processes", type=click.IntRange(2), default=2, show_default=True)
@click.option("--step", type=float, help="Seconds of a step to expect of a GPU, for the outlook.")
@click.option("--link", metavar="NAME", help="What joins the processes, if it is not the loopback.")
@_of_a_recipe
def scaling(
    config: Path,
    overrides: tuple[str, ...],
    processes: int,
    step: float | None,
    link: str | None,
    quick: bool,
    records: Path,
) -> None:
    """1 to N processes: images/s, bytes a step, and what a cluster can be expected to do."""
    from benchmarks.scaling import measure, show_cluster

    outcome = measure(config, overrides, processes, quick, link)
    place = f"-{link.replace(' ', '-')}" if link else ""
    _conclude(outcome, f"scaling-{config.stem}{place}", quick, records)
    show_cluster(outcome, step)


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
@click.option(
    "--rival", metavar="COMMAND",
    help="Someone else's training, in turn with ours, with {seed} in it; the last line it prints "
    'is {"accuracy": ..., "seconds": ...}.',
)  # fmt: skip
@_of_runs
def accuracy(
    config: Path,
    overrides: tuple[str, ...],
    rival: str | None,
    seeds: int,
    keep: Path | None,
    quick: bool,
    records: Path,
) -> None:
    """What a recipe reaches over several seeds, and how long it takes."""
    from benchmarks.accuracy import measure

    with _kept(keep) as folder:
        outcome = measure(config, overrides, seeds, quick, folder, rival)
    _conclude(outcome, f"accuracy-{outcome.settings['name']}", quick, records)


@main.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True), required=True)
@click.argument("overrides", nargs=-1, metavar="[KEY.PATH=VALUE]...")
@click.option(
    "--rival", "rivals", multiple=True, metavar="NAME=COMMAND",
    help="Someone else's trainer, as benchmarks/turns.py describes it; may be repeated.",
)  # fmt: skip
@click.option(
    "--variant", "others", multiple=True, metavar="NAME=CHANGES",
    help="The recipe with other settings, 'nine=train.epochs=9 optim.lr=0.2'; may be repeated.",
)  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True),
    help="No new round of runs begins after so long, but the first.",
)  # fmt: skip
@_of_runs
def turns(
    config: Path,
    overrides: tuple[str, ...],
    others: tuple[str, ...],
    rivals: tuple[str, ...],
    minutes: float | None,
    seeds: int,
    keep: Path | None,
    quick: bool,
    records: Path,
) -> None:
    """A recipe, its variants and its rivals on a GPU, in turn, in processes that stay warm."""
    from benchmarks import contestant
    from benchmarks.turns import measure

    changes = [*overrides, *(["train.epochs=1"] if quick else [])]
    own = contestant.variants(others)
    theirs = contestant.rivals(rivals, taken=list(own))
    with _kept(keep) as folder:
        outcome = measure(config, changes, seeds, folder, theirs, minutes, own)
    _conclude(outcome, f"turns-{outcome.settings['name']}", quick, records)


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
    _keep(outcome, name, quick, records)


@main.command()
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=math.inf,
    help="For all that this call does.  [default: as long as it takes]",
)  # fmt: skip
@click.option(
    "--speedruns", type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A folder with clones of public speedruns; those that benchmarks/speedrun.py knows "
    "take turns with ours.",
)  # fmt: skip
@click.option("--keep", type=_FOLDER, default=Path("runs/battery"), show_default=True)
@_common
def gpu(minutes: float, speedruns: Path | None, keep: Path, quick: bool, records: Path) -> None:
    """The whole battery for a machine with one GPU; a second call goes on with the first."""
    import torch

    from benchmarks.battery import tasks, work

    battery = tasks(keep, quick, speedruns)
    if not torch.cuda.is_available():
        raise UserError("torch sees no GPU here; the battery is for a machine with one")
    keep, records = keep.resolve(), records.resolve()
    endings = work(battery, 60 * minutes, keep, records)
    for task in battery:
        ending = endings.get(task.name)
        click.echo(f"{task.name}: {ending or 'not begun'}")
    if any(task.name not in endings or endings[task.name].code != 0 for task in battery):
        click.echo("call it again to go on")
        raise SystemExit(1)


@main.command()
def readme() -> None:
    """Write the tables of README.md and benchmarks/README.md anew from the newest records."""
    from benchmarks.readme import PAGES, render

    for page in PAGES:
        write_text(page, render(page.read_text(encoding="utf-8"), page=page))
        click.echo(f"written: {page}")


if __name__ == "__main__":
    main()
