"""How runs stand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fasttrain.cli.group import PATH, main, percent, print_table
from fasttrain.errors import UserError
from fasttrain.times import roughly

if TYPE_CHECKING:
    from fasttrain.use.status import Status


@main.command()
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a run, a line each.")
def status(runs: tuple[Path, ...], as_json: bool) -> None:
    """Show how each RUN stands, and what to type next; several get a line each.

    A folder of runs, such as runs/, stands for all of them, the newest last.
    """
    from fasttrain.use.status import runs_in
    from fasttrain.use.status import status as look

    amiss = []
    found_runs = [run for path in runs for run in runs_in(path)]
    for run in found_runs:
        try:
            found = look(run)
        except UserError as error:
            amiss.append(str(error))
            continue
        if as_json:
            click.echo(json.dumps(asdict(found)))
        elif len(found_runs) > 1:
            click.echo(_line(found))
        else:
            _show(found)
    if amiss:
        raise UserError("; ".join(amiss))


def _show(found: Status) -> None:
    rows = {
        "state": _state(found),
        "done": _done(found),
        "time left": roughly(found.seconds_left) if found.seconds_left else "",
        "speed": _speed(found),
        "validation accuracy": percent(found.validation_accuracy),
        "test accuracy": percent(found.test_accuracy),
        "checkpoint": _checkpoint(found),
        "restarts": str(found.restarts or ""),
        "message": found.message,
    }
    shown = {name: value for name, value in rows.items() if value}
    print_table(shown, title=found.run)
    click.echo(f"next: {found.next}")


def _line(found: Status) -> str:
    parts = (
        f"{found.run}: {_state(found)}",
        _done(found),
        f"{roughly(found.seconds_left)} left" if found.seconds_left else "",
        _speed(found),
        f"validation {percent(found.validation_accuracy)}" if found.validation_accuracy else "",
        f"test {percent(found.test_accuracy)}" if found.test_accuracy else "",
        f"checkpoint {_checkpoint(found)}",
        f"restarts {found.restarts}" if found.restarts else "",
    )
    return ", ".join(filter(None, parts))


def _state(found: Status) -> str:
    place = f" on {found.host} (pid {found.pid})" if found.host else ""
    if found.state in ("running", "stalled") and found.silent is not None:
        return f"{found.state}{place}, last sign of life {roughly(found.silent)} ago"
    return found.state


def _done(found: Status) -> str:
    steps = f" of {found.steps:,}" if found.steps else ""
    return f"step {found.step:,}{steps}, epoch {found.epoch} of {found.epochs}"


def _speed(found: Status) -> str:
    if found.images_per_second is None:
        return ""
    return f"{found.images_per_second:,.0f} images/s, data {percent(found.data_stall)}"


def _checkpoint(found: Status) -> str:
    if found.checkpoint_step is None or found.checkpoint_age is None:
        return "none"
    return f"of step {found.checkpoint_step:,}, {roughly(found.checkpoint_age)} old"
