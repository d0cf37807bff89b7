"""A prepared data set on disk: whole arrays, memory-mapped, checksummed, cached by content.

    <cache>/stores/cifar10-<key>/
      store.json                          what it holds, a SHA-256 for each file, and its own seal
      train-images.npy  train-labels.npy  (N, H, W, 3) uint8, (N,) int64
      test-images.npy   test-labels.npy

The folder appears under its final name only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from fasttrain.errors import UserError
from fasttrain.files import atomic_folder, explain_write_errors, sha256

SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, SplitName] = ("train", "test")

_FORMAT = 1
_COUNTED = 2**22  # pixels at a time, since bincount widens them to 64 bits


@dataclass(frozen=True)
class Split:
    """Pictures and their classes.

    Attributes:
        images: (N, H, W, 3) uint8, RGB.
        labels: (N,) int64, positions in the store's `classes`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


Content = tuple[tuple[str, ...], Mapping[SplitName, Split]]  # the class names, the splits
Progress = Callable[[str, int, int], None]  # what is being done, how much is done, of how much


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class Store:
    """A data set ready to train on; the arrays are read from disk when they are touched.

    Attributes:
        name: The data set's name.
        folder: Where it lies.
        classes: The class names; a label is a position in this tuple.
        train: The training split.
        test: The test split.
        mean: Mean of each channel over the training split, 0 to 255.
        std: Standard deviation of each channel over the training split, 0 to 255.
        key: A short hash of the content of the source.
        digest: A short hash of the prepared arrays: equal digests, equal pictures.
    """

    name: str
    folder: Path
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    key: str
    digest: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every picture, in pixels."""
        _, height, width, _ = self.train.images.shape
        return height, width


def content_key(*parts: object) -> str:
    """A short hash of what identifies the content of a source."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Return `$FASTTRAIN_CACHE`, or the folder where this user's programs keep their caches."""
    from platformdirs import user_cache_path

    explicit = os.environ.get("FASTTRAIN_CACHE")
    return expand("FASTTRAIN_CACHE", Path(explicit)) if explicit else user_cache_path("fasttrain")


def expand(setting: str, path: Path) -> Path:
    """Write out the `~` of a path that a setting names.

    Raises:
        UserError: it is the home of a user that there is not.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{setting}={path}: there is no home folder of that user; write the path in full"
        ) from error


def store_folder(name: str, key: str, root: Path | None = None) -> Path:
    """Where the store of this name and content key lies; arguments as `obtain`."""
    return (root or cache_folder()) / "stores" / f"{name}-{key}"


def obtain(
    name: str,
    key: str,
    read: Callable[[], Content],
    root: Path | None = None,
) -> Store:
    """Open the store of this name and content key, preparing it first where there is none.

    Processes that ask at the same time wait for the one that prepares. A store whose checksums
    do not hold is set aside and prepared again.

    Args:
        name: The data set's name.
        key: A hash that changes whenever the content of the source does.
        read: Reads the source; returns the class names and the two splits.
        root: The cache folder; by default `cache_folder()`.

    Raises:
        UserError: the source is unusable, or the cache cannot be written.
    """
    folder = store_folder(name, key, root)
    with explain_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    if (folder / "store.json").exists():
        try:
            return open_store(folder)
        except UserError:
            if not os.access(folder.parent, os.W_OK):
                raise
    with explain_write_errors(folder):
        lock = FileLock(folder.parent / f".{folder.name}.lock").acquire()
    with lock:
        sweep(folder)
        if folder.exists():
            try:
                return open_store(folder)
            except UserError:
                with explain_write_errors(folder):
                    shutil.rmtree(folder)
        classes, splits = read()
        _write(folder, name, key, classes, splits)
    return open_store(folder)


def sweep(path: Path) -> None:
    """Remove what killed processes left aside of `path`; only the holder of its lock may."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        shutil.rmtree(part, ignore_errors=True)


def open_store(folder: Path) -> Store:
    """Open a prepared store and hold every file against its checksum.

    Raises:
        UserError: something is missing, of another format, or damaged; the file is named.
    """
    try:
        about = json.loads((folder / "store.json").read_text())
        if about["format"] != _FORMAT:
            raise UserError(f"{folder}: a store of format {about['format']}, not {_FORMAT}")
        if about.pop("seal", None) != content_key(json.dumps(about)):
            raise _damaged(folder / "store.json")
        for file, digest in about["sha256"].items():
            if sha256(folder / file) != digest:
                raise _damaged(folder / file)
        splits = {split: _map_split(folder, split) for split in SPLITS}
        return Store(
            name=about["name"],
            folder=folder,
            classes=tuple(about["classes"]),
            mean=tuple(about["mean"]),
            std=tuple(about["std"]),
            key=about["key"],
            digest=content_digest(about["sha256"]),
            **splits,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}: not a whole prepared store ({error}); delete the folder and run again"
        ) from error


def _damaged(file: Path) -> UserError:
    return UserError(f"{file}: the checksum does not hold; delete the folder and run again")


def content_digest(checksums: Mapping[str, str]) -> str:
    """Return a short hash of the checksums of a store's arrays."""
    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()[:16]


def _map_split(folder: Path, split: SplitName) -> Split:
    images = np.load(folder / f"{split}-images.npy", mmap_mode="r")
    return Split(images, np.load(folder / f"{split}-labels.npy"))


def let_go(images: NDArray[np.uint8]) -> None:
    """Let the system have back the memory of a mapped file's pages, of which there is a copy now.

    The array stays as it was: pages that are touched again are read again.
    """
    base: object = images
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not everywhere
        base.madvise(mmap.MADV_DONTNEED)


def _write(
    folder: Path,
    name: str,
    key: str,
    classes: tuple[str, ...],
    splits: Mapping[SplitName, Split],
) -> None:
    """Write a whole store, or nothing."""
    for split, content in splits.items():
        images, labels = len(content.images), len(content.labels)
        if images != labels:
            raise UserError(f"{name}: {images} {split} pictures but {labels} labels")
    mean, std = channel_statistics(splits["train"].images)
    with atomic_folder(folder) as aside:
        for split in SPLITS:
            np.save(aside / f"{split}-images.npy", splits[split].images)
            np.save(aside / f"{split}-labels.npy", splits[split].labels)
        about: dict[str, Any] = {
            "format": _FORMAT,
            "name": name,
            "key": key,
            "classes": classes,
            "mean": mean,
            "std": std,
            "sha256": {file.name: sha256(file) for file in sorted(aside.iterdir())},
        }
        about["seal"] = content_key(json.dumps(about))
        (aside / "store.json").write_text(json.dumps(about, indent=2))


def channel_statistics(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Exact mean and standard deviation of each channel of (N, H, W, 3) uint8, 0 to 255.

    They are computed from a histogram, so the result does not depend on the order of summation.
    A deviation is at least 1 grey level, so that a constant channel can be divided by it.
    """
    histogram = np.zeros((images.shape[-1], 256), dtype=np.int64)
    _, height, width, _ = images.shape
    piece = max(_COUNTED // (height * width), 1)
    for start in range(0, len(images), piece):
        for channel, counts in enumerate(histogram):
            some = images[start : start + piece, ..., channel]
            counts += np.bincount(some.ravel(), minlength=256)
    values, total = np.arange(256, dtype=np.float64), histogram[0].sum()
    means = histogram @ values / total
    squares = (values - means[:, None]) ** 2
    deviations = np.sqrt((histogram * squares).sum(axis=1) / total)
    return means.tolist(), deviations.clip(min=1.0).tolist()
