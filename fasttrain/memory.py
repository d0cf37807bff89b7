"""What the C library does with memory that a training step frees.

glibc hands large blocks back to the system at once (mallopt(3), M_MMAP_THRESHOLD), so each step
has all its activations mapped and cleared again, page by page. Kept by the process they are simply
used again (`python -m benchmarks memory` measures what that brings). Beside a GPU it is the plan of
an epoch that is made anew so often.
"""

from __future__ import annotations

import ctypes
import os
import platform

# malloc.h; the values are what glibc begins with.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_TRIM_THRESHOLD, _MMAP_MAX = 128 * 1024, 65536
_NEVER, _NOTHING = -1, 0


def keep_freed() -> bool:
    """Keep freed memory for what is allocated next; return whether this machine can.

    Another C library decides by itself, and so does a user who has set glibc's own variables.
    """
    if not _is_ours_to_decide():
        return False
    _set(_NOTHING, _NEVER)
    return True


def trim() -> None:
    """Hand what is free now to the system, as after compiling, which takes more than training."""
    if _is_ours_to_decide():
        ctypes.CDLL(None).malloc_trim(0)


def give_back() -> None:
    """Hand free memory to the system, now and from now on."""
    if _is_ours_to_decide():
        _set(_MMAP_MAX, _TRIM_THRESHOLD)
        trim()


def _set(mmap_max: int, trim_threshold: int) -> None:
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_MAX, mmap_max)
    library.mallopt(_M_TRIM_THRESHOLD, trim_threshold)


def _is_ours_to_decide() -> bool:
    set_by_user = {"MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
    if set_by_user & os.environ.keys() or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    return platform.libc_ver()[0] == "glibc"
