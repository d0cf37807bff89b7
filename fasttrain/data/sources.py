"""Where a data set comes from: what was set, else the user's cache, else a download.

What was set by the user (`data.path`, else `$FASTTRAIN_DATA`) is used or refused; nothing else
is tried in its place. A source is read once, into a prepared store that is found again by its
content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fasttrain.config import Data
from fasttrain.data import cifar, folders, known, tree
from fasttrain.data.download import download
from fasttrain.data.shapes import ShapesSource
from fasttrain.data.store import (
    SPLITS,
    Content,
    Progress,
    Store,
    cache_folder,
    expand,
    obtain,
    open_store,
    silent,
    store_folder,
)
from fasttrain.errors import UserError


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
    return _open_known(data) or open_source(data, progress)[1]


def open_here(data: Data) -> Store | None:
    """Open it where the data set is on this machine; `None` where it must be downloaded.

    Raises:
        UserError: it is not where it was said to be, or cannot be used.
    """
    is_made = data.dataset == "shapes"
    return open_dataset(data) if is_made or _place(data) else None


def open_source(data: Data, progress: Progress = silent) -> tuple[Source, Store]:
    """Look through what the store is prepared from, also where that was done before.

    Arguments and errors as `open_dataset`.
    """
    stamp = _stamp(data)  # before it is looked at: it may change meanwhile
    source = find_source(data)
    key = source.key()
    store = obtain(data.dataset, key, lambda: source.read(progress))
    known.remember(stamp, key)
    return source, store


def open_prepared(data: Data) -> Store | None:
    """Open the store of a data set that was prepared before; nothing is read anew or downloaded.

    `None` where there is none, or where its source is not at hand any more.
    """
    try:
        if store := _open_known(data):
            return store
        source = find_here(data)
        folder = store_folder(data.dataset, source.key()) if source else None
        return open_store(folder) if folder and folder.exists() else None
    except UserError:
        return None


def find_source(data: Data) -> Source:
    """Find what the store is prepared from, downloading it where nothing else was said.

    Raises:
        UserError: as `open_dataset`.
    """
    downloads = cache_folder() / "downloads"
    found = find_here(data)
    return found or cifar.CifarSource(data.dataset, download(data.dataset, downloads))


def find_here(data: Data) -> Source | None:
    """Find what the store is prepared from on this machine; `None` where it must be downloaded.

    Raises:
        UserError: the data is not where it was said to be, or not such data.
    """
    place = _place(data)
    if data.dataset == "shapes":
        return ShapesSource()
    return _source(data, place) if place else None


@dataclass(frozen=True)
class _Place:
    """Where a data set lies: in the official archive or its folder, or as pictures by class."""

    paths: list[Path]
    official: bool

    @property
    def files(self) -> list[Path]:
        """The files that hold all of it; none where there are folders, too."""
        return self.paths if all(path.is_file() for path in self.paths) else []


def _place(data: Data) -> _Place | None:
    """Find where a data set lies; `None` where it is made, or must be downloaded."""
    if data.dataset == "shapes":
        if data.path is not None:
            raise UserError("data.dataset=shapes is generated: it reads no data.path; leave it out")
        return None
    for setting, value in (("data.path", data.path), ("FASTTRAIN_DATA", _environment())):
        if value is not None:
            return _find_given(data, setting, expand(setting, value))
    if data.dataset == "folder":
        raise UserError("data.dataset=folder: set data.path=... to your folder or zip of pictures")
    downloads = cache_folder() / "downloads"
    with _explained(f"the cache {downloads}", downloads, "; set FASTTRAIN_CACHE to another folder"):
        return _find_in(data, downloads)


def _environment() -> Path | None:
    value = os.environ.get("FASTTRAIN_DATA")
    return Path(value) if value else None


def _find_given(data: Data, setting: str, path: Path) -> _Place:
    with _explained(f"{setting}={path}", path):
        place = _find_in(data, path) if path.exists() else None
    if place is None:
        there = "holds no such data" if path.exists() else "is not there"
        raise UserError(
            f"{setting}={path} {there}; for data.dataset={data.dataset} it must be, or be a "
            f"folder with, {_forms(data.dataset)}; correct {setting} or data.dataset"
        )
    return place


@contextmanager
def _explained(what: str, path: Path, mend: str = "") -> Iterator[None]:
    """Turn the operating system's refusal to let us look at `path` into one line."""
    try:
        yield
    except OSError as error:
        inside = "" if error.filename in (None, str(path)) else f"{error.filename} "
        raise UserError(f"{what}: {inside}cannot be read: {error.strerror}{mend}") from error


def _forms(dataset: str) -> str:
    """The forms in which a data set is accepted, for a message."""
    if dataset == "folder":
        return (
            "the folders train and test (<split>/<class>/<picture>), with data.test_share the "
            "folders of the classes (<class>/<picture>), or zips of them"
        )
    archive, folder = cifar.NAMES[dataset]
    return (
        f"{archive}, {folder}, the folders train and test (<split>/<class>/<picture>), "
        f"{dataset}.zip, or {dataset}-train.zip and {dataset}-test.zip"
    )


def _find_in(data: Data, path: Path) -> _Place | None:
    """The data set that `path` is, or that lies in it or one level down under its own name."""
    for place in (path, path / data.dataset):
        archive = _find_archive(data.dataset, place)
        if archive is not None:
            return _Place([archive], official=True)
        pictures = _find_pictures(data.dataset, place)
        if pictures:
            return _Place(pictures, official=False)
    return None


def _source(data: Data, place: _Place) -> Source:
    """List what lies there."""
    if place.official:
        return cifar.CifarSource(data.dataset, place.paths[0])
    if data.dataset == "folder":
        share = data.test_share
        division = None if share is None else tree.Division(share, data.split_seed)
        return folders.find(place.paths, target=data.size, division=division)
    return folders.find(place.paths, cifar.CLASSES[data.dataset], cifar.SIZE)


def _stamp(data: Data) -> str | None:
    """Name the state of the files that hold the data set; `None` where that does not say all."""
    place = _place(data)
    # All but the files that decides what is made of them.
    settings = data.dataset, data.size, data.test_share, data.split_seed, folders.VERSION
    return known.stamp(place.files, settings) if place else None


def _open_known(data: Data) -> Store | None:
    """Open what was prepared from the files as they are; `None` where there is nothing whole."""
    key = known.recall(_stamp(data))
    with suppress(UserError):
        if key is not None and (folder := store_folder(data.dataset, key)).exists():
            return open_store(folder)
    return None


def _find_archive(dataset: str, place: Path) -> Path | None:
    """The official archive of a CIFAR set or the folder it holds."""
    if dataset not in cifar.NAMES:
        return None
    archive, folder = cifar.NAMES[dataset]
    if place.is_file():
        return place if place.name.endswith((".tar.gz", ".tgz")) else None
    if place.is_dir() and place.absolute().name == folder:
        return place
    return next((path for path in (place / archive, place / folder) if path.exists()), None)


def _find_pictures(dataset: str, place: Path) -> list[Path]:
    """The folder or the zips that hold pictures by class; none: an empty list."""
    if place.is_file():
        return [place] if place.suffix.lower() == ".zip" else []
    if any((place / split).is_dir() for split in SPLITS):
        return [place]
    if dataset == "folder":
        return [place] if tree.lies_by_class(place) else _zips(place)
    whole = place / f"{dataset}.zip"
    halves = [place / f"{dataset}-{split}.zip" for split in SPLITS]
    return [whole] if whole.exists() else [half for half in halves if half.exists()]


def _zips(folder: Path) -> list[Path]:
    """All that are not hidden: a Mac puts a ._NAME beside each file of a foreign disk."""
    files = [path for path in folder.glob("[!.]*") if path.suffix.lower() == ".zip"]
    return sorted(files)
