"""The official archives of the CIFAR sets, from where their author publishes them."""

from __future__ import annotations

import socket
import tempfile
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from fasttrain.data import cifar
from fasttrain.data.store import sweep
from fasttrain.errors import UserError
from fasttrain.files import explain_write_errors, put_in_place

_PATIENCE = 30.0  # seconds without a byte after which a download is given up
_NETWORK_ERRORS = (
    urllib.error.URLError,
    ConnectionError,
    TimeoutError,
    HTTPException,
    RuntimeError,  # torchvision's, where the checksum of what came does not hold
)


def download(dataset: str, folder: Path) -> Path:
    """Fetch the official archive of a CIFAR set into `folder`, once for all processes.

    Raises:
        UserError: there is no network, no room, or what came is not what was published.
    """
    archive, about = folder / cifar.NAMES[dataset][0], cifar.published(dataset)
    try:
        _fetch(about, archive)
    except _NETWORK_ERRORS as error:
        raise UserError(
            f"{dataset} was not found: data.path and FASTTRAIN_DATA are not set, {folder} holds "
            f"none, and the download of {about.url} failed ({error}); set data.path=... or "
            f"FASTTRAIN_DATA=..., or put {archive.name} into {folder} by hand, or try "
            "data.dataset=shapes"
        ) from error
    return archive


def _fetch(about: cifar.Published, archive: Path) -> None:
    """Download aside and rename, unless another process just did.

    torchvision draws its own progress bar and checks the MD5.
    """
    from torchvision.datasets.utils import download_url

    folder, prefix = archive.parent, f".{archive.name}."
    with explain_write_errors(archive):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{prefix}lock"), _patience(_PATIENCE):
            sweep(archive)
            if archive.exists():
                return
            with tempfile.TemporaryDirectory(dir=folder, prefix=prefix, suffix=".part") as aside:
                download_url(about.url, aside, archive.name, about.md5)
                put_in_place(Path(aside) / archive.name, archive)


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Give up on a silent server: torchvision itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
