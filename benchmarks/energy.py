"""What a GPU draws from its supply, by the counter that its driver keeps."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

_MILLI = 1000


def joules() -> float | None:
    """What the first GPU that this process may use has drawn since its driver was loaded.

    None where there is no GPU, no `nvidia-ml-py`, or a GPU that does not count (it began with
    Volta). The driver writes a new figure every tenth of a second or so: differences are of use
    over more than that. What other processes let the GPU do is counted, too.
    """
    meter = _meter()
    if meter is None:
        return None
    library, gpu = meter
    try:
        return float(library.nvmlDeviceGetTotalEnergyConsumption(gpu)) / _MILLI
    except library.NVMLError:
        return None


@cache
def _meter() -> tuple[Any, Any] | None:
    """NVIDIA's management library, and its name for the GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
        # Not through torch: that would start CUDA in a process that needs none.
        if wanted.isdecimal():
            return pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(wanted))
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(wanted)
    except pynvml.NVMLError:
        return None


def between(before: float | None, after: float | None) -> float | None:
    """The difference of two readings; None where one is missing."""
    return None if before is None or after is None else after - before
