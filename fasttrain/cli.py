"""The commands: parse, call, print.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fasttrain.errors import FasttrainError
from fasttrain.interrupts import follow_launcher
from fasttrain.redact import redact

if TYPE_CHECKING:
    from fasttrain.config import Tta

_PATH = click.Path(path_type=Path)


class Group(click.Group):
    """Ends every expected failure with one line and its exit code, and never a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; with `standalone_mode` this ends the process, as click has it."""
        follow_launcher()  # before the slow imports: it may end meanwhile
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except FasttrainError as error:
            code = _tell(str(error), error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            code = _tell(f"{error.format_message()} (fasttrain --help tells more)", 2)
        except click.Abort:
            code = _tell("interrupted", 130)
        except Exception:
            if not standalone_mode:
                raise
            click.echo(redact(traceback.format_exc()), err=True)  # of a bug, but without secrets
            code = 1
        if standalone_mode:
            _leave(code or 0)
        return code


def _leave(code: int) -> NoReturn:
    """End the process.

    One of several ranks leaves without the interpreter's teardown: a thread of torch's that still
    runs then calls std::terminate now and then, and a run that is complete looks like a crash.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _tell(message: str, code: int) -> int:
    """Write one line, with the rank that it comes from where there are several."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    place = f" (rank {os.environ.get('RANK', '0')})" if several else ""
    click.echo(redact(f"fasttrain{place}: {message}"), err=True)
    return code


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option("--allow-changes", is_flag=True, help="... also under other settings.")
def train(
    config: Path,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    resume: bool,
    allow_changes: bool,
) -> None:
    """Train as CONFIG says; KEY.PATH=VALUE changes a setting, such as train.epochs=20."""
    from fasttrain.config import load

    settings = load(config, overrides)
    from fasttrain.training.run import run

    folder, result = run(settings, run_dir, resume, changed=allow_changes)
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
    Console(markup=False).print(summary(rows, title=str(folder)), highlight=False)
    click.echo(f"next: {shlex.join(['fasttrain', 'evaluate', str(folder)])}")


def _percent(share: float | None) -> str:
    return "none held out" if share is None else f"{share:.2%}"


@main.command()
@click.argument("run", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--best", is_flag=True, help="The checkpoint that validated best, not the newest.")
@click.option("--tta", type=click.Choice(["none", "flip", "shift"]), help="Test-time views.")
def evaluate(run: Path, as_json: bool, best: bool, tta: Tta | None) -> None:
    """Score the newest checkpoint of RUN on the test set."""
    import json

    from fasttrain.use.evaluate import evaluate as score_run

    report = score_run(run, best, tta)
    if os.environ.get("RANK", "0") != "0":
        return
    for reason in report["passed_over"]:
        click.echo(f"passed over {reason}", err=True)
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
    """Prepare a data set, say what is there, or show what the model will see."""


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
    Console(markup=False).print(summary(rows, title=store.name), highlight=False)


@data.command()
@click.argument("config", type=_PATH)
@_overrides
@click.option("-o", "--output", type=_PATH, default="preview.png", show_default=True)
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


@main.command()
def doctor() -> None:
    """Show what will be used on this machine, and what is missing."""
    from rich.console import Console

    from fasttrain.doctor import examine

    Console().print(examine(), highlight=False)
