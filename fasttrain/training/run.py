"""A run, from its configuration to its result and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from fasttrain import models
from fasttrain.compiled import CompiledCode, key
from fasttrain.config import Config
from fasttrain.data import sources
from fasttrain.data.store import cache_folder
from fasttrain.errors import DivergedError, FasttrainError, StoppedError, UserError
from fasttrain.interrupts import StopRequest
from fasttrain.observe import folder as folders
from fasttrain.observe import reporting
from fasttrain.observe.folder import Outcome, RunFolder
from fasttrain.observe.progress import working
from fasttrain.redact import redact
from fasttrain.runtime import Runtime
from fasttrain.training import parts
from fasttrain.training.loop import Training
from fasttrain.watchdog import Watchdog

Result = dict[str, Any]

_OUTCOMES: dict[type[FasttrainError], Outcome] = {
    StoppedError: "stopped",
    DivergedError: "diverged",
    UserError: "refused",
}


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
        StoppedError: a signal asked for it; a checkpoint was written.
    """
    # Heard from the start: when one rank refuses, its launcher ends the others, and each of them
    # still says why, or leaves in order.
    with StopRequest() as stop:
        parts.check(config)
        reporting.is_wanted(config.track)
        runtime = Runtime(config.train)
        try:
            return _run(config, runtime, stop, run_dir, resume, console, changed)
        finally:
            runtime.close()


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
        console = Console(stderr=True, markup=False, quiet=not runtime.is_main)
    folder = runtime.on_main(lambda: folders.choose(config, run_dir, resume, changed))
    with ExitStack() as held:
        runtime.on_main(lambda: held.enter_context(folder.alone()))
        done = runtime.on_main(folder.finished)
        if done is not None:  # a scheduler may start a job once more
            console.print(f"{folder.path} is complete: nothing is left to do")
            return folder, done
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
    with working(console) as progress:
        store = sources.open_dataset(config.data, progress)
    models.check(config.model, store.size)
    seconds = 60 * config.train.watchdog.value if config.train.watchdog else None
    with (
        Watchdog(seconds, folder.stacks(runtime.rank)) as watchdog,
        _compiled_code(config, runtime, folder, console) as compiled,
    ):
        training = Training(config, runtime, store, folder, console, stop, watchdog, compiled.seal)
        return training.run(resume, changed)


@contextmanager
def _compiled_code(
    config: Config, runtime: Runtime, folder: RunFolder, console: Console
) -> Iterator[CompiledCode]:
    """The compiler's folder; all ranks use the one that the main rank has prepared."""
    shapes = [config.model.model_dump_json(), config.train.precision, str(config.data.batch_size)]
    name = key(runtime.device, " ".join(shapes))
    code = CompiledCode(
        name, folder.path, cache_folder(),
        lambda line: console.print(redact(line), highlight=False, soft_wrap=True),
        active=runtime.compile, main=runtime.is_main,
    )  # fmt: skip
    with code:
        code.use(runtime.on_main(code.prepare))
        yield code


def _recorded(folder: RunFolder, runtime: Runtime, train: Callable[[], Result]) -> Result:
    """Train; keep in the run folder how it went, whatever happens."""
    if not runtime.is_main:
        return train()
    try:
        result = train()
        folder.finish(result)
    except BaseException as error:
        with suppress(UserError):  # of the disk: what happened first is what matters
            _conclude(folder, error)
        raise
    return result


def _conclude(folder: RunFolder, error: BaseException) -> None:
    if isinstance(error, FasttrainError):
        folder.conclude(_OUTCOMES[type(error)], error.exit_code, str(error))
    else:
        folder.conclude("failed", 1, f"{type(error).__name__}: {error}")
