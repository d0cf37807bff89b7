"""What all commands share: how they fail, and what they take."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from fasttrain.errors import FasttrainError
from fasttrain.launcher import follow_launcher
from fasttrain.redact import redact


class _NamedPath(click.Path):
    """A path; an empty one is refused, which `Path` takes for the folder one is in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raise click's error for what names nothing."""
        if value == "":
            self.fail("the path is empty, as of a variable that is not set; name one", param, ctx)
        return super().convert(value, param, ctx)


PATH = _NamedPath(path_type=Path)
TTA = click.Choice(["none", "flip", "shift"])  # a configuration's `train.tta`


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
            code = _tell(f"{_explain(error)} ({_help(error)} tells more)", 2)
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
    _note(code)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _note(code: int) -> None:
    """Add the exit code as a line to the file $FASTTRAIN_EXIT_CODES, for `launch/node.sh`.

    Launchers pass no exit code on, and `outcome.json` is silent about what was refused before a
    run began, and about a refusal to touch the run of another process.
    """
    file = os.environ.get("FASTTRAIN_EXIT_CODES")
    if file:
        with suppress(OSError), Path(file).open("a") as codes:
            codes.write(f"{code}\n")


def _tell(message: str, code: int) -> int:
    """Write one line, with the rank that it comes from where there are several.

    A rank whose message is empty leaves it to another one to speak.
    """
    if not message:
        return code
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    place = f" (rank {os.environ.get('RANK', '0')})" if several else ""
    with suppress(OSError):  # nobody may be there to read it
        # The name of a file may hold the end of a line.
        click.echo(redact(f"fasttrain{place}: {' '.join(message.splitlines())}"), err=True)
    return code


def _explain(error: click.ClickException) -> str:
    """What is wrong with a command line; a setting that is written like an option gets its form."""
    if isinstance(error, click.NoSuchOption) and _takes_settings(error.ctx):
        from fasttrain.config.explaining import homes

        name = error.option_name.lstrip("-").replace("-", "_")
        found = [name] if "." in name else homes(name)
        if found:
            forms = " or ".join(f"{key}=VALUE" for key in found)
            return (
                f"no option is called {error.option_name}; a setting is written without dashes: "
                f"{forms}"
            )
    return " ".join(error.format_message().split())  # that of a choice has a line for each


def _help(error: click.ClickException) -> str:
    """The command that explains the one which was typed, as far as it is known."""
    context = getattr(error, "ctx", None)
    if context is None:
        return "fasttrain --help"
    root = context.find_root()
    if root.command is not main:
        return f"{context.command_path} --help"
    return f"fasttrain{context.command_path.removeprefix(root.info_name or '')} --help"


def _takes_settings(context: click.Context | None) -> bool:
    return context is not None and any(each.name == "overrides" for each in context.command.params)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fasttrain")
def main() -> None:
    """Train CIFAR-10-class image classifiers quickly."""


def overridable(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take KEY.PATH=VALUE arguments, as `overrides`."""
    return click.argument("overrides", nargs=-1, metavar="[KEY.PATH=VALUE]...")(command)


def print_table(rows: dict[str, str], title: str) -> None:
    """Print what a command found, as names and values."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left", title_style="bold")
    for row in rows.items():
        table.add_row(*row)
    Console(markup=False).print(table, highlight=False)


def percent(share: float | None, none: str = "") -> str:
    """A share as people read it; `none` where it is not known."""
    return none if share is None else f"{share:.2%}"


def tell_passed_over(reasons: Iterable[str]) -> None:
    """Say which newer checkpoints could not be used, and why."""
    for reason in reasons:
        click.echo(f"passed over {reason}", err=True)
