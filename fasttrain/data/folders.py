"""Pictures by class in a folder or zips, decoded to a data set.

They lie at `train/<class>/<picture>` and `test/<class>/<picture>`, or undivided at
`<class>/<picture>`; of any kind that `data.pictures` decodes, and of any size where it is said to
which one they are brought.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from fasttrain.data import tree
from fasttrain.data.members import Member, contents, members
from fasttrain.data.pictures import decode
from fasttrain.data.store import SPLITS, Content, Progress, Split, SplitName, content_key
from fasttrain.errors import UserError

VERSION = 2  # part of the key: raise it when the same files give other pixels, labels or splits
_REPORT_EVERY = 250  # pictures between two reports of progress: some hundredths of a second
_AHEAD = 64  # files that may be in memory at once, being decoded or waiting for it


@dataclass(frozen=True)
class PicturesSource:
    """Pictures by class as the source of a prepared store; made by `find`.

    Attributes:
        tree: For each split and class name its pictures, in order.
        classes: The class names in the order of their labels.
        size: Height and width that every picture must have; None: those of the first one.
        target: Height and width that every picture is brought to; None: none is changed.
    """

    tree: tree.Tree
    classes: tuple[str, ...]
    size: tuple[int, int] | None = None
    target: tuple[int, int] | None = None

    def key(self) -> str:
        """A short hash of all names, and of sizes with checksums (zip) or times (folder)."""
        pictures = {split: self.pictures(split) for split in SPLITS}
        stamps = [[(m.name, m.stamp, label) for m, label in pictures[split]] for split in SPLITS]
        places = {pictures[split][0][0].place for split in SPLITS}
        # Times and sizes may agree by accident between two folders, so the folder's path counts.
        folders = sorted(str(place.resolve()) for place in places if place.is_dir())
        about = self.classes, self.size, self.target
        return content_key("pictures", VERSION, about, folders, stamps)

    def pictures(self, split: SplitName) -> list[tuple[Member, int]]:
        """The pictures of a split with their labels, in the order of classes and names."""
        return [
            (member, label)
            for label, name in enumerate(self.classes)
            for member in self.tree[split].get(name, ())
        ]

    def read(self, progress: Progress) -> Content:
        """Decode every picture.

        Raises:
            UserError: a picture is damaged, cannot be read, or has another size; it is named. Or
                all of them together are more than fits into memory.
        """
        train, test = (self.pictures(split) for split in SPLITS)
        images = self._decode_all([member for member, _ in train + test], progress)
        labels = np.array([label for _, label in train + test], dtype=np.int64)
        cut = len(train)
        return self.classes, {
            "train": Split(images[:cut], labels[:cut]),
            "test": Split(images[cut:], labels[cut:]),
        }

    def _decode_all(self, files: Sequence[Member], progress: Progress) -> NDArray[np.uint8]:
        """(N, H, W, 3): the pictures in order."""
        size, images = self.size, np.empty(0, dtype=np.uint8)
        with closing(_decoded(files, self.target)) as decoded:
            for done, (member, pixels) in enumerate(decoded):
                if done % _REPORT_EVERY == 0:
                    progress("decoding pictures", done, len(files))
                found = pixels.shape[0], pixels.shape[1]
                size = size or found
                if found != size:
                    raise self._another_size(member, found, size)
                if done == 0:
                    images = _allocate(len(files), size)
                images[done] = pixels
        progress("decoding pictures", len(files), len(files))
        return images

    def _another_size(
        self, member: Member, found: tuple[int, int], size: tuple[int, int]
    ) -> UserError:
        mend = "" if self.size else ", here with data.size=32 or the like"
        return UserError(
            f"{member}: {found[1]}x{found[0]} pixels, but this set's pictures have "
            f"{size[1]}x{size[0]}; bring all to one size{mend}"
        )


def find(
    places: Sequence[Path],
    classes: tuple[str, ...] | None = None,
    size: tuple[int, int] | None = None,
    target: tuple[int, int] | None = None,
    division: tree.Division | None = None,
) -> PicturesSource:
    """List the pictures by class in a folder or in zips, and check that they make a data set.

    Args:
        places: One folder, or zips that together hold both splits.
        classes: The class names that must be there, in the order of their labels; None: any,
            ordered by name.
        size: Height and width that every picture must have; None: those of the first one.
        target: Height and width to bring every picture to; None: none is changed.
        division: How to divide what lies at `<class>/<picture>`; None: both splits are there.

    Raises:
        UserError: a place cannot be read, holds unsafe names or something other than pictures by
            class, a class has no picture, or training and test do not fit together.
    """
    where = " and ".join(str(place) for place in places)
    if division is None:
        for place in places:
            if place.is_dir() and tree.is_undivided(place):
                raise tree.undivided(where)
        files = chain.from_iterable(members(place, SPLITS) for place in places)
        found = tree.by_split(files, where, divisible=classes is None)
    else:
        files = chain.from_iterable(members(place) for place in places)
        found = tree.by_class(files, where, division)
    tree.check_classes(found, where, classes)
    return PicturesSource(found, classes or tuple(sorted(found["train"])), size, target)


def _decoded(
    files: Sequence[Member], target: tuple[int, int] | None
) -> Generator[tuple[Member, NDArray[np.uint8]]]:
    """Yield every picture with its pixels, in order; threads decode the next ones meanwhile.

    Of several bad pictures it is the first one that is named, on any number of threads.
    """
    pool = ThreadPoolExecutor()
    waiting: deque[tuple[Member, Future[NDArray[np.uint8]]]] = deque()
    try:
        ahead = 1  # until the first one has shown how large they are
        for entry in _submit(pool, files, target):
            waiting.append(entry)
            if len(waiting) == ahead:
                member, pixels = waiting.popleft()
                yield member, pixels.result()
                ahead = _AHEAD
        for member, pixels in waiting:
            yield member, pixels.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ThreadPoolExecutor, files: Sequence[Member], target: tuple[int, int] | None
) -> Iterator[tuple[Member, Future[NDArray[np.uint8]]]]:
    """Read the files in order and hand them to the pool; one that cannot be read is the last."""
    read = 0
    try:
        for member, content in contents(files):
            yield member, pool.submit(decode, content, str(member), target)
            read += 1
    except UserError as error:
        failed: Future[NDArray[np.uint8]] = Future()
        failed.set_exception(error)
        yield files[read], failed


def _allocate(count: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(count, H, W, 3), unless it is more than there is: the system would kill the process.

    Those that are decoded ahead need room beside them.
    """
    needed = (count + min(count, _AHEAD)) * size[0] * size[1] * 3
    free = psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"{count:,} pictures of {size[1]}x{size[0]} pixels need {needed / 2**30:.1f} GiB of "
            f"memory, and {free / 2**30:.1f} are free; choose a smaller data.size"
        )
    return np.empty((count, *size, 3), dtype=np.uint8)
