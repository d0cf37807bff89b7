"""What one does with a trained model: predict pictures, export it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import bidirectional, category

import click

from fasttrain.cli.group import PATH, TTA, main, tell_passed_over

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fasttrain.config import Tta
    from fasttrain.errors import UserError
    from fasttrain.use.formats import Format
    from fasttrain.use.predict import Prediction

_BREAKING = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of characters, ends of lines
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@main.command()
@click.argument("run", type=PATH)
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("--list", "listed", is_flag=True, help="Standard input has one path a line.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes shown.")
@click.option("--best", is_flag=True, help="The checkpoint that validated best, not the newest.")
@click.option("--tta", type=TTA, help="Test-time views; by default the run's own.")
@click.option("--batch-size", type=click.IntRange(1, 65536), default=64, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Threads that decode pictures; by default one a core.",
)
def predict(
    run: Path,
    paths: tuple[str, ...],
    listed: bool,
    as_json: bool,
    top: int,
    best: bool,
    tta: Tta | None,
    batch_size: int,
    threads: int | None,
) -> None:
    """Say what the pictures at PATH... show: files, folders, or - for standard input.

    RUN is a run's folder, or a model that was exported as safetensors. Pictures of any size and
    kind are brought to the run's: turned as EXIF says, laid on white, the whole resized with
    antialiasing. Without --json a line has the path, then class and confidence by turns, between
    tabs. A file that cannot be used is named on standard error, and the exit code is 2.
    """
    if listed and not paths:
        paths = ("-",)
    if not paths or (listed and "-" not in paths):
        what = "--list reads standard input: name it, - or nothing else" if paths else "no PATH"
        raise click.UsageError(what)
    from fasttrain.errors import UserError
    from fasttrain.use.inputs import find_inputs
    from fasttrain.use.model import open_model
    from fasttrain.use.predict import place
    from fasttrain.use.predict import predict as predict_all

    trained = open_model(run, best, tta)
    tell_passed_over(trained.passed_over)
    inputs = list(find_inputs(paths, listed))
    model = place(trained.model)
    began = time.perf_counter()
    found = predict_all(model, inputs, batch_size, threads, top)
    refused = _print_all(found, len(inputs), as_json)
    seconds, predicted = time.perf_counter() - began, len(inputs) - refused
    click.echo(
        f"{predicted:,} pictures in {seconds:.1f} s: {predicted / seconds:,.0f} images/s", err=True
    )
    if refused:
        raise UserError(f"{refused:,} of {len(inputs):,} were refused; each is named above")


def _print_all(found: Iterable[list[Prediction | UserError]], total: int, as_json: bool) -> int:
    """Print batches as they come, and what was refused to standard error; return how many."""
    import warnings

    from rich.console import Console

    from fasttrain.errors import UserError
    from fasttrain.observe.progress import working

    on_terminal = sys.stdout.isatty()
    # Where the lines themselves can be seen, a bar would only get between them.
    console = Console(stderr=True, markup=False, force_terminal=False if on_terminal else None)
    done = refused = 0
    with warnings.catch_warnings(), working(console) as show:
        warnings.simplefilter("ignore")  # Pillow's, of what it passes over in a picture
        show("predicting", 0, total)
        for batch in found:
            for each in batch:
                if isinstance(each, UserError):
                    click.echo(_shown(f"refused {each}", sys.stderr.isatty()), err=True)
                    refused += 1
                else:
                    click.echo(json.dumps(each.as_json()) if as_json else _line(each, on_terminal))
            done += len(batch)
            show("predicting", done, total)
    return refused


def _line(found: Prediction, on_terminal: bool) -> str:
    """For a program: the path, class and confidence by turns, between tabs. Else to be read."""
    if not on_terminal:
        shares = [part for _, name, share in found.top for part in (name, f"{share:.4f}")]
        return "\t".join(_shown(part, on_terminal) for part in [found.name, *shares])
    best, *others = (f"{name} {share:.1%}" for _, name, share in found.top)
    line = f"{found.name}: {best}" + (f"  ({', '.join(others)})" if others else "")
    return _shown(line, on_terminal)


def _shown(text: str, on_terminal: bool) -> str:
    """One line, in what the terminal's encoding has; file names may hold anything.

    A program must be able to find the file by it, so only what would break the line is replaced;
    on a terminal also what would show it in another order than it has.
    """
    line = "".join(
        "\ufffd"
        if category(each) in _BREAKING or (on_terminal and bidirectional(each) in _TURNING)
        else each
        for each in text
    )
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "replace").decode(encoding)


@main.command()
@click.argument("run", type=PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "torch", "safetensors"]),
    required=True,
    help="ONNX, a torch.export package, or weights with their description.",
)
@click.option("-o", "--output", type=PATH, required=True, help="FILE.onnx, .pt2 or .safetensors.")
@click.option("--best", is_flag=True, help="The checkpoint that validated best, not the newest.")
@click.option("--tta", type=TTA, help="Test-time views in the file; by default the run's own.")
@click.option(
    "--check",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    help="Test pictures on which the file is held to the model before it is written.",
)
def export(run: Path, form: Format, output: Path, best: bool, tta: Tta | None, check: int) -> None:
    """Write RUN's model to one file, and a model card beside it.

    The file takes (B, H, W, 3) uint8 pictures and normalises them itself.
    """
    from fasttrain.use.export import export as write

    done = write(run, form, output, best, tta, check)
    tell_passed_over(done.trained.passed_over)
    click.echo(f"checked on {done.agreement.pictures:,} {done.pictures}: {done.agreement}")
    click.echo(f"written: {done.file} ({done.size / 1e6:.1f} MB), {done.card}")
