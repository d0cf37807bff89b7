"""The CIFAR archives as their authors publish them (Krizhevsky 2009, cs.toronto.edu/~kriz).

An archive or a batch in it is held against its published MD5 before it is opened; the checksums
are torchvision's. What is then unpickled may name nothing but the three things that build a
numpy array. Nothing is extracted: a batch is read from the archive into memory.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttrain.data.members import Member
from fasttrain.data.store import Content, Progress, Split, SplitName, content_key
from fasttrain.errors import UserError

SIZE = (32, 32)

_TEN = "airplane automobile bird cat deer dog frog horse ship truck"
_HUNDRED = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

# A label is a position in these.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "cifar10": tuple(_TEN.split()),
    "cifar100": tuple(_HUNDRED.split()),
}

# The archive and the folder in it. Asking torchvision for these would cost seconds of imports
# wherever data is looked for.
NAMES: Mapping[str, tuple[str, str]] = {
    "cifar10": ("cifar-10-python.tar.gz", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-python.tar.gz", "cifar-100-python"),
}


_MEND = "delete it and download it again"


@dataclass(frozen=True)
class Published:
    """What is published about one of the sets.

    Attributes:
        url: Where the archive is.
        md5: Its MD5.
        batches: For each split the files of its batches and their MD5s, in order.
        labels: The key of the labels in a batch.
    """

    url: str
    md5: str
    batches: Mapping[SplitName, Mapping[str, str]]
    labels: str

    @property
    def digests(self) -> dict[str, str]:
        """The MD5 of every batch."""
        return {name: md5 for names in self.batches.values() for name, md5 in names.items()}


def published(dataset: str) -> Published:
    """Return torchvision's record of `cifar10` or `cifar100`."""
    from torchvision.datasets import CIFAR10, CIFAR100

    known, labels = {"cifar10": (CIFAR10, "labels"), "cifar100": (CIFAR100, "fine_labels")}[dataset]
    batches: dict[SplitName, dict[str, str]] = {
        "train": dict(known.train_list),
        "test": dict(known.test_list),
    }
    return Published(known.url, known.tgz_md5, batches, labels)


@dataclass(frozen=True)
class CifarSource:
    """An official archive, or the folder that it holds, as the source of a prepared store.

    Attributes:
        dataset: `cifar10` or `cifar100`.
        path: The archive or the folder.
    """

    dataset: str
    path: Path

    def key(self) -> str:
        """Check the archive, or every batch in the folder; a short hash of their checksums.

        Raises:
            UserError: a file is missing or its checksum does not hold; it is named.
        """
        about = published(self.dataset)
        if self.path.is_dir():
            for name, content in self._batches(about.digests):
                _check(content, about.digests[name], Member(self.path, name))
            return content_key("cifar folder", self.dataset, about.digests)
        with _explain_read_errors(self.path):
            _check(self.path.read_bytes(), about.md5, self.path)
        return content_key("cifar archive", self.dataset, about.md5)

    def read(self, progress: Progress) -> Content:
        """Read all batches.

        Raises:
            UserError: a batch is missing or damaged, or its labels do not fit; it is named.
        """
        about, classes = published(self.dataset), CLASSES[self.dataset]
        read: dict[str, Split] = {}
        for name, content in self._batches(about.digests):
            where = Member(self.path, name)
            _check(content, about.digests[name], where)
            read[name] = _unpack(content, about.labels, len(classes), where)
            progress(f"reading {self.path.name}", len(read), len(about.digests))
        for name in about.digests.keys() - read.keys():
            raise UserError(f"{Member(self.path, name)}: is missing; {_MEND}")
        splits = about.batches.items()
        return classes, {split: _join([read[name] for name in names]) for split, names in splits}

    def _batches(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The batches of these names with their bytes, in the order in which they lie there."""
        with _explain_read_errors(self.path):
            if self.path.is_dir():
                yield from ((name, (self.path / name).read_bytes()) for name in names)
            else:
                folder = NAMES[self.dataset][1]
                yield from _from_archive(self.path, {f"{folder}/{name}": name for name in names})


@contextmanager
def _explain_read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {_MEND}") from error


def _from_archive(path: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Read the wanted members; what could point elsewhere is refused, wanted or not."""
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.name.startswith("/") or ".." in member.name.split("/"):
                raise UserError(f"{path}!{member.name}: points out of the archive; {_MEND}")
            if not (member.isfile() or member.isdir()):
                raise UserError(f"{path}!{member.name}: is a link or a device; {_MEND}")
            file = archive.extractfile(member)
            if member.name in wanted and file is not None:
                yield wanted[member.name], file.read()


def _check(content: bytes, md5: str, where: Path | Member) -> None:
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise UserError(
            f"{where}: the checksum is not the published one, so it is damaged, cut short or "
            f"another file; {_MEND}"
        )


# All that a batch may name; `_reconstruct` is what numpy itself names to rebuild an array.
_GLOBALS: Mapping[str, Any] = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


class _BatchUnpickler(pickle.Unpickler):
    """Unpickles dictionaries, lists, numbers, text and numpy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _GLOBALS:
            return _GLOBALS[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch needs")


def _unpack(content: bytes, labels_key: str, classes: int, where: Member) -> Split:
    """Turn a batch, rows of 3072 bytes in the order channel, row, column, into pictures."""
    try:
        # Python 2 wrote the batches: latin1 keeps the bytes of its strings as they are.
        batch = _BatchUnpickler(io.BytesIO(content), encoding="latin1").load()
        pixels, labels = batch["data"], np.asarray(batch[labels_key])
    except Exception as error:  # a damaged pickle may raise anything (documentation of pickle)
        raise UserError(f"{where}: is not a batch of pictures ({error}); {_MEND}") from error
    problem = _problem(pixels, labels, classes)
    if problem:
        raise UserError(f"{where}: {problem}; {_MEND}")
    images = pixels.reshape(-1, 3, *SIZE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels.astype(np.int64))


def _problem(pixels: Any, labels: NDArray[Any], classes: int) -> str | None:
    """What is wrong with a batch, if anything is."""
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2):
        return "its pictures are not rows of bytes"
    if pixels.shape[1] != 3 * SIZE[0] * SIZE[1]:
        return f"its pictures have {pixels.shape[1]} bytes, not 3072"
    if labels.shape != (len(pixels),):
        return f"{labels.size} labels do not fit {len(pixels)} pictures"
    if labels.dtype.kind != "i" or not set(labels.tolist()) <= set(range(classes)):
        return f"a label is not one of 0 to {classes - 1}"
    return None


def _join(parts: Sequence[Split]) -> Split:
    return Split(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
