"""Pictures by class: `train/<class>/<picture>` and `test/<class>/<picture>`, a folder or zips.

All that shows without decoding a picture (a missing split, an empty class, a class in one split
only) is checked when the files are listed, so that bad input fails before any work is done.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fasttrain.data.members import Member, contents, members
from fasttrain.data.store import SPLITS, Content, Progress, Split, SplitName, content_key
from fasttrain.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
# Modes of at most eight bits a channel: turning others (16-bit grey) into RGB would clip them.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_REPORT_EVERY = 250  # pictures between two reports of progress: some hundredths of a second


Tree = Mapping[SplitName, Mapping[str, Sequence[Member]]]


@dataclass(frozen=True)
class PicturesSource:
    """Pictures by class as the source of a prepared store; made by `find`.

    Attributes:
        tree: For each split and class name its pictures, in order.
        classes: The class names in the order of their labels.
        size: Height and width that every picture must have; None: those of the first one.
    """

    tree: Tree
    classes: tuple[str, ...]
    size: tuple[int, int] | None

    def key(self) -> str:
        """A short hash of all names, and of sizes with checksums (zip) or times (folder)."""
        pictures = {split: self._pictures(split) for split in SPLITS}
        stamps = [(m.name, m.stamp, label) for split in SPLITS for m, label in pictures[split]]
        places = {pictures[split][0][0].place for split in SPLITS}
        # Times and sizes may agree by accident between two folders, so the folder's path counts.
        folders = sorted(str(place.resolve()) for place in places if place.is_dir())
        return content_key("pictures", self.classes, self.size, folders, stamps)

    def _pictures(self, split: SplitName) -> list[tuple[Member, int]]:
        """The pictures of a split with their labels, in the order of classes and names."""
        return [
            (member, label)
            for label, name in enumerate(self.classes)
            for member in self.tree[split].get(name, ())
        ]

    def read(self, progress: Progress) -> Content:
        """Decode every picture.

        Raises:
            UserError: a picture is damaged, cannot be read, or has another size; it is named.
        """
        train, test = (self._pictures(split) for split in SPLITS)
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
        for done, (member, content) in enumerate(contents(files)):
            if done % _REPORT_EVERY == 0:
                progress("decoding pictures", done, len(files))
            pixels = _decode(member, content, size)
            if done == 0:
                size = pixels.shape[0], pixels.shape[1]
                images = np.empty((len(files), *pixels.shape), dtype=np.uint8)
            images[done] = pixels
        progress("decoding pictures", len(files), len(files))
        return images


def find(
    places: Sequence[Path],
    classes: tuple[str, ...] | None = None,
    size: tuple[int, int] | None = None,
) -> PicturesSource:
    """List the pictures by class in a folder or in zips, and check that they make a data set.

    Args:
        places: One folder, or zips that together hold both splits.
        classes: The class names that must be there, in the order of their labels; None: any,
            ordered by name.
        size: Height and width that every picture must have; None: those of the first one.

    Raises:
        UserError: a place cannot be read, holds unsafe names or something other than pictures by
            class, a class has no picture, or training and test do not fit together.
    """
    tree = _by_class(member for place in places for member in members(place, SPLITS))
    where = " and ".join(str(place) for place in places)
    _check_filled(tree, where)
    _check_classes(tree, where, classes)
    return PicturesSource(tree, classes or tuple(sorted(tree["train"])), size)


def _by_class(files: Iterable[Member]) -> Tree:
    """Sort members by split and class; a class folder without a picture stands there empty."""
    tree: dict[SplitName, dict[str, list[Member]]] = {split: {} for split in SPLITS}
    roots: dict[SplitName, set[tuple[Path, str]]] = {split: set() for split in SPLITS}
    for member in files:
        if _is_hidden(member.name):
            continue
        *above, file = member.name.split("/")
        is_picture = file.lower().endswith(SUFFIXES)
        split = next((name for name in SPLITS if above[-2:-1] == [name]), None)
        if split is not None:
            roots[split].add((member.place, "/".join(above[:-2])))
            tree[split].setdefault(above[-1], []).extend([member] if is_picture else [])
        elif is_picture and not set(SPLITS).isdisjoint(above):
            raise UserError(f"{member}: does not lie at <split>/<class>/<picture>; move it there")
    for split in SPLITS:
        _refuse_two_sets(split, roots[split])
    return {split: _in_order(labels) for split, labels in tree.items()}


def _is_hidden(name: str) -> bool:
    return "/." in f"/{name.removeprefix('./')}" or "__MACOSX/" in name


def _in_order(labels: Mapping[str, list[Member]]) -> dict[str, list[Member]]:
    return {label: sorted(files, key=lambda member: member.name) for label, files in labels.items()}


def _refuse_two_sets(split: SplitName, roots: set[tuple[Path, str]]) -> None:
    """Two data sets that lie side by side are never merged."""
    if len(roots) > 1:
        first, second, *_ = sorted(str(Member(place, f"{root}/{split}")) for place, root in roots)
        raise UserError(f"{first} and {second} both hold {split} pictures; keep one of the two")


def _check_filled(tree: Tree, where: str) -> None:
    """Both splits are there, and no class folder is empty."""
    for split in SPLITS:
        if not tree[split]:
            raise UserError(
                f"{where}: no {split} pictures at {split}/<class>/<picture> with one of the "
                f"suffixes {' '.join(SUFFIXES)}; both train and test are needed"
            )
        empty = sorted(label for label, files in tree[split].items() if not files)
        if empty:
            raise UserError(
                f"{where}: no picture in {split}/{empty[0]}; add some or remove the class"
            )


def _check_classes(tree: Tree, where: str, expected: tuple[str, ...] | None) -> None:
    """No class is missing and none is too many."""
    train, test = set(tree["train"]), set(tree["test"])
    if test - train:
        raise UserError(
            f"{where}: class {min(test - train)!r} has test pictures but no training pictures; "
            "add some or remove the class"
        )
    for split, labels in (("train", train), ("test", test)):
        different = labels ^ set(expected or labels)
        if different:
            name = min(different)
            problem = "is not one of this data set" if name in labels else "is missing"
            raise UserError(
                f"{where}: class {name!r} {problem} in {split}; for classes of your own "
                "set data.dataset=folder"
            )


def _decode(member: Member, content: bytes, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """(H, W, 3): one picture, its size checked before its pixels are unpacked."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            _check_form(member, picture, size)
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{member}: not a whole picture of the format its name says; replace or remove it"
        ) from error


def _check_form(member: Member, picture: Image.Image, size: tuple[int, int] | None) -> None:
    height, width = size or (picture.height, picture.width)
    if (picture.height, picture.width) != (height, width):
        raise UserError(
            f"{member}: {picture.width}x{picture.height} pixels, but this set's pictures have "
            f"{width}x{height}; bring all to one size"
        )
    if picture.mode not in _MODES:
        raise UserError(
            f"{member}: pixels of the kind {picture.mode!r}; convert it to 8 bits a channel"
        )
