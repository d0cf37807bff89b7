"""Where a data set comes from: what was set, else the user's cache, else a download.

What was set by the user (`data.path`, else `$FASTTRAIN_DATA`) is used or refused; nothing else
is tried in its place. A source is read once, into a prepared store that is found again by its
content.
"""

from __future__ import annotations

import os
import socket
import tempfile
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from fasttrain.config import Data
from fasttrain.data import cifar, folders
from fasttrain.data.shapes import ShapesSource
from fasttrain.data.store import (
    SPLITS,
    Content,
    Progress,
    Store,
    cache_folder,
    obtain,
    silent,
    sweep,
)
from fasttrain.errors import UserError
from fasttrain.files import explain_write_errors

_PATIENCE = 30.0  # seconds without a byte after which a download is given up
_NETWORK_ERRORS = (
    urllib.error.URLError,
    ConnectionError,
    TimeoutError,
    HTTPException,
    RuntimeError,  # torchvision's, where the checksum of what came does not hold
)


class Source(Protocol):
    """Something a store can be prepared from."""

    def key(self) -> str:
        """Return a hash that changes whenever the content does; raise `UserError` if unusable."""

    def read(self, progress: Progress) -> Content:
        """Return the class names and the two splits; raise `UserError` if unusable."""


def open_dataset(data: Data, progress: Progress = silent) -> Store:
    """Open the prepared store of the data set that `data` names, preparing it the first time.

    Args:
        data: Which data set, and where it lies.
        progress: Is told how far the preparation has come. A download draws its own bar.

    Raises:
        UserError: the data is not where it was said to be, or cannot be found, downloaded or
            used; the message says what was tried and how to mend it.
    """
    source = find_source(data)
    return obtain(data.dataset, source.key(), lambda: source.read(progress))


def find_source(data: Data) -> Source:
    """Find what the store of `data` is prepared from; downloads it where it must. Errors as above."""
    given = _given_path(data)
    if data.dataset == "shapes":
        if data.path is not None:
            raise UserError("data.dataset=shapes is generated and reads no data.path; leave it out")
        return ShapesSource()
    if given is not None:
        return _source_given(data.dataset, *given)
    if data.dataset == "folder":
        raise UserError(
            "data.dataset=folder needs to know where: set data.path=FOLDER_OR_ZIP or FASTTRAIN_DATA"
        )
    downloads = cache_folder() / "downloads"
    return _source_inside(data.dataset, downloads) or _download(data.dataset, downloads)
