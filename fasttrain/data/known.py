"""The content keys of files that were looked through before, by what the disk says of them.

To list 60,000 members of a zip, or to hash an archive, takes longer than to open what was prepared
from it. A file is taken for the same as long as its path, inode, size and times are, of which most
file systems set one at every write. One that has only just changed may change again within the same
tick of their clocks, so it is not remembered yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fasttrain.data.store import cache_folder, content_key
from fasttrain.errors import UserError
from fasttrain.files import write_text

_TICK_NS = 2_000_000_000  # the coarsest clock of a file system


def stamp(files: Sequence[Path], settings: Sequence[object]) -> str | None:
    """Name the state of some files; `None` if there is none, or one is not there or too new.

    Args:
        files: All that the content comes from.
        settings: What else decides what is made of them.
    """
    try:
        about = [(str(path.resolve()), path.stat()) for path in files]
    except OSError:
        return None
    newest = max((max(s.st_mtime_ns, s.st_ctime_ns) for _, s in about), default=0)
    if newest > time.time_ns() - _TICK_NS:
        return None
    states = [(path, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in about]
    return content_key("known", *settings, states) if states else None


def recall(stamp: str | None) -> str | None:
    """The content key that was remembered for a stamp, or `None`."""
    if stamp is not None:
        with suppress(OSError, UnicodeDecodeError):
            return _note(stamp).read_text()
    return None


def remember(stamp: str | None, key: str) -> None:
    """Keep a content key for the next time; where nothing can be written, nothing is."""
    if stamp is not None and recall(stamp) != key:
        with suppress(UserError, OSError):
            write_text(_note(stamp), key)


def _note(stamp: str) -> Path:
    return cache_folder() / "keys" / stamp
