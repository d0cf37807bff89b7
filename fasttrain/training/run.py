"""A run, from its configuration to its result and its outcome."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from fasttrain import compiler, garbage, memory, models
from fasttrain.config import Config
from fasttrain.data import sources
from fasttrain.data.store import Store
from fasttrain.errors import StoppedError, UserError
from fasttrain.interrupts import StopRequest
from fasttrain.launcher import check_processes
from fasttrain.observe import choosing, reporting
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.heartbeat import Heartbeat
from fasttrain.observe.metrics import serving
from fasttrain.observe.progress import Screen, working
from fasttrain.redact import redact
from fasttrain.runtime import Runtime
from fasttrain.training import agreement, parts
from fasttrain.training.assembly import assemble
from fasttrain.training.loop import Training
from fasttrain.training.surroundings import compiled_code, enough_memory, opened_runtime
from fasttrain.watchdog import Watchdog

Result = dict[str, Any]


def run(
    config: Config,
    run_dir: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    changed: bool = False,
) -> tuple[RunFolder, Result]:
    """Train as configured; return the run folder and what its `result.json` holds.

    `outcome.json` in the run folder says how it ended, and with which exit code.

    Args:
        config: The run.
        run_dir: Where to write; by default a new folder under `runs/`.
        resume: Go on with the run in `run_dir`, from its newest whole checkpoint; one that is
            complete is left as it is.
        console: Where progress is shown; by default standard error.
        changed: Go on with it under other settings than it was begun with.

    Raises:
        UserError: the configuration cannot be run here.
        DivergedError: the loss or a gradient is not a finite number any more.
        StoppedError: a signal asked for it, behind a checkpoint or ahead of the first step.
        LostPeerError: another rank, its machine or the network failed.
    """
    # Heard from the start: when one rank refuses, its launcher ends the others, and each of them
    # still says why, or leaves in order.
    with StopRequest() as stop:
        parts.check(config)
        reporting.is_wanted(config.track)
        with opened_runtime(config.train) as runtime:
            return _run(config, runtime, stop, run_dir, resume, console, changed)


def _run(
    config: Config,
    runtime: Runtime,
    stop: StopRequest,
    run_dir: Path | None,
    resume: bool,
    console: Console | None,
    changed: bool,
) -> tuple[RunFolder, Result]:
    parts.check_world(config, runtime.world)
    if console is None or not runtime.is_main:
        console = Screen(quiet=not runtime.is_main)
    # Launches of several machines may differ in these; the main rank's hold for all.
    folder, resume, changed = runtime.on_main(
        lambda: (choosing.choose(config, run_dir, resume, changed), resume, changed)
    )
    with ExitStack() as held:
        runtime.on_main(lambda: held.enter_context(folder.alone()))
        done = runtime.on_main(folder.finished)
        if done is not None:  # a scheduler may start a job once more
            console.print(f"{folder.path} is complete: nothing is left to do")
            return folder, done
        runtime.on_main(lambda: folder.conclude("running", None))
        result = _recorded(
            folder,
            runtime,
            lambda: _train(config, runtime, folder, console, resume, changed, stop),
        )
    return folder, result


def _train(
    config: Config,
    runtime: Runtime,
    folder: RunFolder,
    console: Console,
    resume: bool,
    changed: bool,
    stop: StopRequest,
) -> Result:
    seconds = 60 * config.train.watchdog.value if config.train.watchdog else None
    watchdog = Watchdog(
        seconds,
        folder.stacks(runtime.rank),
        lambda line: _tell_hang(runtime, folder, line),
        halts=runtime.world == 1,
    )
    heartbeat = Heartbeat(folder, config, watchdog)
    tell = _teller(console)
    with ExitStack() as held, runtime.explain_losses(), enough_memory(_less_memory(config)):
        check_processes(config.train.processes, "train.processes", runtime.world)
        metrics = serving(config.track.metrics_port, heartbeat, tell)
        runtime.on_main(lambda: held.enter_context(metrics))
        if runtime.compile:
            compiler.hash_ahead()  # beside what follows
        store = _open_data(config, runtime, folder, console, resume, stop)
        models.check(config.model, store.size)
        held.enter_context(watchdog)
        compiled = held.enter_context(compiled_code(config, runtime, folder.path, tell))

        def started() -> None:
            compiled.seal()
            garbage.go_on()
            memory.trim()

        made = assemble(config, runtime, store, folder, tell)
        training = Training(
            config, runtime, store, folder, made, console, tell, stop, watchdog, heartbeat, started
        )
        return training.run(resume, changed)


def _open_data(
    config: Config,
    runtime: Runtime,
    folder: RunFolder,
    console: Console,
    resume: bool,
    stop: StopRequest,
) -> Store:
    """Open the data on every rank, and compare what they have before they go on.

    Preparing it may take minutes: one process that is asked to stop does so at the next picture.
    """
    store, problem = None, None
    try:
        with working(console) as progress:

            def show(what: str, done: int, total: int) -> None:
                if runtime.world == 1:
                    _stop_if_asked(stop, folder)
                progress(what, done, total)

            store = sources.open_dataset(config.data, show)
    except UserError as error:
        if runtime.world == 1:
            raise
        problem = str(error)
    if runtime.world > 1:
        data = store.digest if store else None
        agreement.check(runtime, config, folder, data, problem, resume, _teller(console))
    return cast(Store, store)


def _stop_if_asked(stop: StopRequest, folder: RunFolder) -> None:
    if stop.signal is not None:
        raise StoppedError(
            f"{stop.signal} stopped {folder.path} while its data was prepared; go on with "
            f"--run-dir {folder.path} --resume"
        )


def _less_memory(config: Config) -> str:
    return (
        f"choose a smaller data.batch_size than {config.data.batch_size}, or train.accumulate=N, "
        "which takes it in N parts, or train.cuda_graphs=false, which is slower"
    )


def _tell_hang(runtime: Runtime, folder: RunFolder, line: str) -> None:
    """Say that this process is about to end; the disk, which may hang too, comes last."""
    place = f" (rank {runtime.rank})" if runtime.world > 1 else ""
    print(f"fasttrain{place}: {line}", file=sys.stderr, flush=True)  # noqa: T201
    if runtime.is_main:
        with suppress(UserError):
            folder.conclude("failed", 1, line)


def _teller(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(redact(line), highlight=False, soft_wrap=True)


def _recorded(folder: RunFolder, runtime: Runtime, train: Callable[[], Result]) -> Result:
    """Train; keep in the run folder what went wrong, wherever it did."""
    try:
        return train()
    except BaseException as error:
        if runtime.is_main:
            folder.fail(error)
        raise
