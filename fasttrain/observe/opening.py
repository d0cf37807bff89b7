"""Opening a run's journal: a new one, or one that is cut back to where the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from fasttrain.config import Config
from fasttrain.errors import UserError
from fasttrain.observe import journal, reporting
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.heartbeat import Heartbeat
from fasttrain.observe.journal import Journal, Record, Sink
from fasttrain.observe.progress import ProgressLine
from fasttrain.observe.reporting import ReportSink
from fasttrain.observe.tracking import WandbSink


def keep(folder: RunFolder, first: int, written: int, changed: bool) -> list[Record]:
    """What a journal keeps of a run that goes on at step `first`.

    Args:
        folder: The run.
        first: Steps that are done.
        written: How many records it held when its checkpoint was made.
        changed: Go on, too, when some of them are not there any more.

    Raises:
        UserError: they are not there.
    """
    if not first:
        return []
    kept = journal.until(folder.journal, first)
    if changed:
        return kept
    if len(kept) < written:
        raise UserError(
            f"{folder.journal} holds {len(kept)} records up to step {first}, and {written} were "
            "written; put back what is missing, or add --allow-changes to go on without"
        )
    return kept[:written]  # an evaluation that is made again comes later


def open_journal(
    config: Config,
    folder: RunFolder,
    kept: Sequence[Record],
    steps: tuple[int, int],
    console: Console,
    tell: Callable[[str], None],
    heartbeat: Heartbeat,
) -> Journal:
    """Open the journal for writing, with all that is shown of it; the main rank's part.

    Args:
        config: The run.
        folder: Where it writes.
        kept: What the journal holds already.
        steps: Those that are done, and all of them.
        console: Where progress is shown.
        tell: Shows the user a line.
        heartbeat: Begins with the journal.
    """
    heartbeat.begin(*steps, kept)
    sinks: list[Sink] = [ProgressLine(config, steps[1], console), heartbeat]
    if reporting.is_wanted(config.track):
        sinks.append(ReportSink(folder.path, console))
    if config.track.wandb != "disabled":
        sinks.append(WandbSink(config.track, folder.path, console))
    return Journal(folder.journal, sinks, tell, len(kept))
