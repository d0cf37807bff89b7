"""Training runs, and what one does with them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fasttrain.cli.group import PATH, TTA, main, overridable, percent, print_table, tell_passed_over

if TYPE_CHECKING:
    from fasttrain.config import LoaderName, Tta


@main.command(epilog="For example: fasttrain train configs/baseline.yaml train.epochs=20")
@click.argument("config", type=PATH)
@overridable
@click.option("--run-dir", type=PATH, help="A new or empty folder; by default one in runs/.")
@click.option("--resume", is_flag=True, help="Go on with the run in --run-dir, if any.")
@click.option(
    "--allow-changes",
    is_flag=True,
    help="With --resume: go on although settings differ from the run's, but not its batches.",
)
def train(
    config: Path,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    resume: bool,
    allow_changes: bool,
) -> None:
    """Train as CONFIG says; KEY.PATH=VALUE changes a setting.

    fasttrain config shows all settings and what they mean.
    """
    from fasttrain import garbage
    from fasttrain.config import load

    settings = load(config, overrides)
    with garbage.postponed():
        from fasttrain.training.run import run

        folder, result = run(settings, run_dir, resume, changed=allow_changes)
    if os.environ.get("RANK", "0") == "0":
        _print_result(folder.path, result)


def _print_result(folder: Path, result: dict[str, Any]) -> None:
    rows = {
        "test accuracy": f"{result['test_accuracy']:.2%} of {result['test_count']:,} pictures",
        "validation accuracy": percent(result["val_accuracy"], "none held out"),
        "training": f"{result['train_seconds']:.1f} s, {result['images_per_second']:,.0f} images/s",
        "waiting for data": f"{result['data_stall']:.1%} of it",
        "besides": f"compile {result['compile_seconds']:.1f} s, "
        f"evaluation {result['evaluate_seconds']:.1f} s, "
        f"checkpoints {result['checkpoint_seconds']:.1f} s",
    }
    print_table(rows, title=str(folder))
    click.echo(f"next: {shlex.join(['fasttrain', 'evaluate', str(folder)])}")


@main.command()
@click.argument("run", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--best", is_flag=True, help="The checkpoint that validated best, not the newest.")
@click.option("--tta", type=TTA, help="Test-time views; by default the run's own.")
@click.option(
    "--loader",
    type=click.Choice(["dali", "resident", "reference"]),
    help="What delivers pictures; by default as the run says.",
)
def evaluate(
    run: Path, as_json: bool, best: bool, tta: Tta | None, loader: LoaderName | None
) -> None:
    """Score the newest checkpoint of RUN on the test set."""
    import json

    from fasttrain.use.evaluate import evaluate as score_run

    report = score_run(run, best, tta, loader)
    if os.environ.get("RANK", "0") != "0":
        return
    tell_passed_over(report["passed_over"])
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    low, high = report["interval"]
    top = {"among the first five": percent(report["top5"])} if "top5" in report else {}
    rows = {
        "test accuracy": f"{report['accuracy']:.2%} of {report['count']:,} pictures, "
        f"95 % confidence {low:.2%} to {high:.2%}",
        **top,
        "loss": f"{report['loss']:.4f}",
        "calibration error": f"{report['calibration_error']:.2%}",
        **{name: percent(share, "no pictures") for name, share in report["per_class"].items()},
    }
    print_table(rows, title=report["checkpoint"])


@main.command()
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN...")
@click.option("-o", "--output", type=PATH, help="By default report.html in the only run's folder.")
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Draw one run with all its details, or several side by side, as an HTML page."""
    from fasttrain.report import write

    if output is None and len(runs) > 1:
        raise click.UsageError("several runs need -o FILE.html")
    file = output or runs[0] / "report.html"
    write(runs, file)
    click.echo(f"written: {file}")
