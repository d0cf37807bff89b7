"""What stands around training and evaluation alike: a device, its compiler, and its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fasttrain import compiler
from fasttrain.compiled import CompiledCode, key
from fasttrain.config import Config, Train
from fasttrain.data.store import cache_folder
from fasttrain.errors import UserError
from fasttrain.runtime import Runtime


@contextmanager
def opened_runtime(train: Train) -> Iterator[Runtime]:
    """Where it runs, until it is done."""
    with compiler.without_triton():
        runtime = Runtime(train)
        try:
            with runtime.explain_losses():
                yield runtime
        finally:
            if runtime.compile:  # torch keeps eight graphs of a function, for all runs together
                torch.compiler.reset()
            runtime.close()


@contextmanager
def enough_memory(mend: str) -> Iterator[None]:
    """Turn a GPU that is full into one line: to start again, as after a crash, would not help."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"the GPU's memory is used up; {mend}") from error


@contextmanager
def compiled_code(
    config: Config, runtime: Runtime, folder: Path, tell: Callable[[str], None]
) -> Iterator[CompiledCode]:
    """The compiler's folder, in `folder`; all ranks use the one that the main rank has prepared."""
    shapes = [config.model.model_dump_json(), config.train.precision, str(config.data.batch_size)]
    name = key(runtime.device, " ".join(shapes))
    code = CompiledCode(
        name, folder, cache_folder(), tell, active=runtime.compile, main=runtime.is_main
    )
    with code:
        code.use(runtime.on_main(code.prepare))
        yield code
