"""Data sets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttrain.cli.group import PATH, main, overridable, print_table
from fasttrain.errors import UserError, nearest

if TYPE_CHECKING:
    from fasttrain.config import Config
    from fasttrain.data.store import Store

# A configuration's `data.dataset`; written out, as asking for it would make --help slow.
DATASETS = ("cifar10", "cifar100", "shapes", "folder")

_SHARE = 0.2  # of each class for the test, where nothing else is said

# What an option of `prepare` is short for.
_SETTINGS = {
    "path": "data.path",
    "size": "data.size",
    "test_share": "data.test_share",
    "seed": "data.split_seed",
    "validation": "data.validation",
    "name": "name",
}

_what = click.argument("what", metavar="CONFIG|DATASET")


@main.group()
def data() -> None:
    """Prepare a data set, say what is there, or show what the model will see.

    Every command takes a configuration, or the name of a data set: cifar10, cifar100, shapes,
    folder.
    """


@data.command()
@_what
@overridable
@click.option(
    "--path",
    type=PATH,
    metavar="DIR",
    help="Where it lies: for folder, a folder or zip of pictures by class.",
)
@click.option("--size", metavar="N|[H,W]", help="Pixels to bring each picture to, such as 32.")
@click.option(
    "--test-share",
    metavar="SHARE",
    help="Share of each class to take for the test, such as 0.2, where DIR has no test folder.",
)
@click.option("--seed", metavar="N", help="Chooses the pictures of --test-share.")
@click.option(
    "--validation",
    metavar="N",
    help="Training pictures to hold out; by default 10 % of pictures of your own.",
)
@click.option("--name", help="The name of runs in the configuration that is written.")
@click.option("-o", "--output", type=PATH, help="A new configuration file to write.")
def prepare(what: str, overrides: tuple[str, ...], output: Path | None, **options: Any) -> None:
    """Prepare the data set that CONFIG names, or DATASET, so that training starts at once.

    With DATASET it tells what it found and how to train on it. The pictures of `folder` lie at
    train/<class>/<picture> and test/<class>/<picture>, or at <class>/<picture>; then a share of
    each class, 0.2 by default, is the test set.
    """
    given = {name: value for name, value in options.items() if value is not None}
    typed = {
        _setting(name, value): f"--{name.replace('_', '-')}={value}"
        for name, value in given.items()
    }
    settings = [*overrides, *typed]
    with _as_typed(typed):
        if _is_dataset(what):
            first = [f"data.dataset={what}"]
            if what == "folder" and "seed" in given:
                first.append(f"data.test_share={_SHARE}")  # any that is set comes later
            _prepare_dataset([*first, *settings], output)
            return
        _refuse_misspelt(what)
        if output is not None:
            raise UserError(f"{output}: only a DATASET's configuration is written, {what} is one")
        click.echo(f"ready: {_open_store(what, settings).folder}")


def _setting(name: str, value: str | Path) -> str:
    """What an option is short for: words are taken as they stand, the rest is read as YAML."""
    from fasttrain.config import override

    key = _SETTINGS[name]
    return override(key, value) if name in ("path", "name") else f"{key}={value}"


@contextmanager
def _as_typed(options: Mapping[str, str]) -> Iterator[None]:
    """Let an error name the option that was typed, and not the setting that it is short for."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for setting, option in options.items():
            message = message.replace(setting, option)
        raise UserError(message) from error


def _prepare_dataset(settings: list[str], output: Path | None) -> None:
    from fasttrain.files import check_writable, explain_write_errors, write_output

    if output is not None:
        with explain_write_errors(output):
            if output.exists():
                raise UserError(f"{output}: is there already; choose another name")
        check_writable(output.absolute().parent)
    from fasttrain.observe.progress import Screen, working
    from fasttrain.use.prepare import prepare

    with working(Screen()) as progress:
        found = prepare(settings, _SHARE, progress)
    click.echo(f"ready: {found.store.folder}")
    print_table(_about(found.store) | found.rows, title=found.store.name)
    if output is None:
        click.echo(f"a configuration for it:\n\n{found.lines}")
        click.echo(f"with any other: fasttrain train CONFIG {found.overrides}")
    else:
        write_output(output, found.lines.encode())
        click.echo(f"written: {output}")
        click.echo(f"next: {shlex.join(['fasttrain', 'train', str(output)])}")


@data.command()
@_what
@overridable
def info(what: str, overrides: tuple[str, ...]) -> None:
    """Show what the data set that CONFIG names, or DATASET, holds."""
    store = _open_store(what, overrides)
    print_table(_about(store), title=store.name)


def _about(store: Store) -> dict[str, str]:
    height, width = store.size
    return {
        "folder": str(store.folder),
        "pictures": f"{len(store.train.labels):,} training, {len(store.test.labels):,} test, "
        f"{height} x {width} pixels",
        "classes": f"{len(store.classes)}: {', '.join(store.classes)}",
        "mean": ", ".join(f"{value:.4f}" for value in store.mean) + " of 255",
        "deviation": ", ".join(f"{value:.4f}" for value in store.std) + " of 255",
        "checksums": "hold",
    }


@data.command()
@_what
@overridable
@click.option(
    "-o",
    "--output",
    type=PATH,
    default="preview.png",
    show_default=True,
    help="A PNG file to write.",
)
@click.option("--pictures", type=click.IntRange(1, 100), default=8, show_default=True, help="Rows.")
@click.option(
    "--epochs", type=click.IntRange(1, 100), default=10, show_default=True, help="Columns."
)
def preview(
    what: str, overrides: tuple[str, ...], output: Path, pictures: int, epochs: int
) -> None:
    """Draw a few training pictures as the first epochs of CONFIG show them to the model."""
    if output.suffix.lower() != ".png":
        raise UserError(f"-o {output}: a preview ends in .png; rename it")
    settings = _load(what, overrides)
    from fasttrain.use.preview import preview as draw

    draw(settings, output, pictures, epochs)
    click.echo(f"written: {output}")


def _is_dataset(what: str) -> bool:
    return what in DATASETS and not Path(what).is_file()


def _load(what: str, overrides: Sequence[str]) -> Config:
    from fasttrain.config import load

    if _is_dataset(what):
        return load(None, [f"data.dataset={what}", *overrides])
    _refuse_misspelt(what)
    return load(Path(what), overrides)


def _refuse_misspelt(what: str) -> None:
    from fasttrain.config.reading import recipe

    hint, is_name = nearest(what, list(DATASETS)), re.fullmatch(r"[A-Za-z0-9_-]{1,80}", what)
    if (hint or (is_name and not recipe(Path(what)))) and not Path(what).exists():
        known = hint or f" (those are {', '.join(DATASETS)})"
        raise UserError(f"{what}: neither a configuration file nor the name of a data set{known}")


def _open_store(what: str, overrides: Sequence[str]) -> Store:
    from fasttrain.observe.progress import Screen, working

    settings = _load(what, overrides)
    from fasttrain.data.sources import open_dataset

    with working(Screen()) as progress:
        return open_dataset(settings.data, progress)
