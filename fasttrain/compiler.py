"""torch's compiler: whether it can be used here, and what it can do beside other work."""

from __future__ import annotations

import logging
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from fasttrain.compiled import user_decides
from fasttrain.errors import UserError


@contextmanager
def without_triton() -> Iterator[None]:
    """Let torch's compiler find no Triton where there is no GPU to write code for.

    It would import it all the same, 70 MB, and hash 500 MB of it at every start. Meanwhile nobody
    else in this process can import it either, and torch's compiler never looks for it again.
    """
    if torch.cuda.is_available() or "triton" in sys.modules:
        yield
        return
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # it would miss it
    sys.modules["triton"] = None  # type: ignore[assignment]  # importing it fails, says Python
    try:
        yield
    finally:
        if sys.modules.get("triton", ...) is None:  # another run's end may have been sooner
            del sys.modules["triton"]


def settle(wanted: bool | Literal["auto"]) -> bool:
    """Say whether a run compiles; `auto` does wherever it can be done.

    Raises:
        UserError: it is wanted, and cannot be done.
    """
    if wanted is False:
        return False
    if not torch.cuda.is_available():
        # The compiler looks for CUDA wherever its tools are installed, and warns in vain.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    missing = missing_for_compile()
    if wanted is True and missing:
        raise UserError(
            f"train.compile=true: torch.compile needs {missing}, which is not here; "
            "install it, or choose train.compile=auto"
        )
    return not missing


def missing_for_compile() -> str | None:
    """What torch.compile lacks to generate code for this machine's device, or `None`."""
    with user_decides():  # importing is enough
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

    try:  # on a GPU too: Triton builds a launcher for each of its kernels
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        return "a C++ compiler (g++)"
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return None if headers.exists() else "Python's headers (python3-dev)"


def hash_ahead() -> None:
    """Let torch's threads hash what the first graph's key holds: its code, and Triton's, if any.

    A process that ends waits for it, so this is for those that will compile.
    """
    with user_decides():
        from torch._inductor import codecache

    for name in ("triton_key", "torch_key"):
        prefetch = getattr(getattr(codecache, name, None), "prefetch", None)
        if prefetch is not None:  # not in every torch
            prefetch()
