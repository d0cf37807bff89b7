"""Which picture belongs to which class and split, from where it lies.

All that shows without decoding a picture (a missing split, an empty class, a class that is in the
test set only) is checked here, so that bad input fails before any work is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasttrain.data.members import Member
from fasttrain.data.pictures import SUFFIXES
from fasttrain.data.randomness import random_words_by_name
from fasttrain.data.store import SPLITS, SplitName
from fasttrain.errors import UserError

Root = tuple[Path, str]  # a folder or zip, and a path in it
Tree = Mapping[SplitName, Mapping[str, Sequence[Member]]]


@dataclass(frozen=True)
class Division:
    """How pictures that lie at `<class>/<picture>` are divided.

    Attributes:
        share: Which share of every class is the test set, between 0 and 1.
        seed: Chooses the pictures.
    """

    share: float
    seed: int


class UndividedError(UserError):
    """Pictures lie at `<class>/<picture>`, and nothing says how to divide them."""


def is_picture(name: str) -> bool:
    """Whether a file is taken for a picture, by its suffix."""
    return name.lower().endswith(SUFFIXES)


def lies_by_class(folder: Path) -> bool:
    """Whether there are pictures at `<class>/<picture>`; the first one found answers it."""
    return any(is_picture(file.name) for file in folder.glob("[!.]*/[!.]*"))


def is_undivided(folder: Path) -> bool:
    """Whether there are pictures at `<class>/<picture>` and none at `<split>/<class>/<picture>`.

    One class may be called as a split is, but not every one.
    """
    if any(lies_by_class(folder / split) for split in SPLITS):
        return False
    files = (file for file in folder.glob("[!.]*/[!.]*") if file.parent.name not in SPLITS)
    return any(is_picture(file.name) for file in files)


def by_split(files: Iterable[Member], where: str, divisible: bool = True) -> Tree:
    """Sort what lies at `<split>/<class>/<picture>`, in the order of classes and names.

    `divisible` says whether one split alone could be divided.

    Raises:
        UndividedError: there are pictures, but neither train nor test ones.
        UserError: a split or the pictures of a class are missing, a picture lies elsewhere in a
            split, or two data sets lie side by side.
    """
    tree: dict[SplitName, dict[str, list[Member]]] = {split: {} for split in SPLITS}
    roots: dict[SplitName, set[Root]] = {split: set() for split in SPLITS}
    by_class_only, astray = False, None
    for member in _visible(files):
        *above, file = member.name.split("/")
        split = next((name for name in SPLITS if above[-2:-1] == [name]), None)
        if split is not None:
            roots[split].add((member.place, f"{'/'.join(above[:-2])}/{split}"))
            tree[split].setdefault(above[-1], []).extend([member] if is_picture(file) else [])
        elif is_picture(file) and not set(SPLITS).isdisjoint(above):
            astray = astray or member
        elif above and is_picture(file):
            by_class_only = True
    if by_class_only and not any(tree.values()):
        raise undivided(where)
    if astray is not None:
        raise UserError(f"{astray}: does not lie at <split>/<class>/<picture>; move it there")
    for split in SPLITS:
        _refuse_two_sets(roots[split], f"{split} pictures")
    for split in SPLITS:
        if not tree[split]:
            mend = ", or set data.test_share=0.2 to divide those that are there"
            raise UserError(
                f"{where}: no {split} pictures at {split}/<class>/<picture> with one of the "
                f"suffixes {' '.join(SUFFIXES)}; add them{mend if divisible else ''}"
            )
        _refuse_empty(tree[split], where, f"{split}/")
    return {split: _in_order(labels) for split, labels in tree.items()}


def undivided(where: str) -> UndividedError:
    """What is said of pictures by class for which no division was set."""
    return UndividedError(
        f"{where}: neither train nor test at <split>/<class>/<picture>; set data.test_share=0.2 "
        "to divide the pictures of every class, or make these folders"
    )


def by_class(files: Iterable[Member], where: str, division: Division) -> Tree:
    """Sort what lies at `<class>/<picture>`, and divide the pictures of every class.

    Which pictures are for the test is a function of the seed and of their own names, class and
    file, and not of where the set lies. Those of a class that come first in the order of a keyed
    hash are taken, so a picture that is added moves at most one other to the other split.

    Raises:
        UserError: the set is divided already, a picture lies elsewhere, or a class has fewer
            than two pictures.
    """
    pictures, others = _undivided(files)
    if not pictures:
        raise UserError(
            f"{where}: no pictures at <class>/<picture> with one of the suffixes "
            f"{' '.join(SUFFIXES)}"
        )
    depth = max(1, min(member.name.count("/") for member in pictures))
    labels: dict[str, list[Member]] = {}
    for member in pictures:
        if member.name.count("/") != depth:
            raise UserError(f"{member}: does not lie at <class>/<picture>; move it there")
        labels.setdefault(member.name.split("/")[-2], []).append(member)
    roots = {_root(member) for member in pictures}
    _refuse_two_sets(roots, "classes")
    for member in others:
        if _root(member) in roots:
            labels.setdefault(member.name.split("/")[-2], [])
    _refuse_empty(labels, where)
    halves = {
        label: _divide(label, files, where, division) for label, files in sorted(labels.items())
    }
    return {
        "train": {label: train for label, (train, _) in halves.items()},
        "test": {label: test for label, (_, test) in halves.items()},
    }


def _root(member: Member) -> Root:
    """Where the folder of its class lies; of a folder, where it lies itself."""
    return member.place, "/".join(member.name.split("/")[:-2])


def _undivided(files: Iterable[Member]) -> tuple[list[Member], list[Member]]:
    """The pictures of a set that is not divided, and what else lies in a folder."""
    pictures, others = [], []
    halves: dict[str, Member] = {}
    for member in _visible(files):
        *above, file = member.name.split("/")
        if not is_picture(file):
            others += [member] if above else []
            continue
        pictures.append(member)
        if above[-2:-1] and above[-2] in SPLITS:
            halves.setdefault(above[-2], member)
    if len(halves) == len(SPLITS):  # with one of them alone, that is what is to be divided
        split, member = min(halves.items())
        raise UserError(
            f"{member}: lies at {split}/<class>/<picture>, so the set is divided already; "
            "leave data.test_share out"
        )
    return pictures, others


def _divide(
    label: str, files: Sequence[Member], where: str, division: Division
) -> tuple[list[Member], list[Member]]:
    """The training and the test pictures of a class, both in the order of their names."""
    if len(files) < 2:
        raise UserError(
            f"{where}: class {label!r} has one picture, and needs one for training and one for "
            "the test; add some or remove the class"
        )
    count = min(max(int(division.share * len(files) + 0.5), 1), len(files) - 1)
    names = ["/".join(file.name.split("/")[-2:]) for file in files]
    words = random_words_by_name(division.seed, "division", names).tolist()
    chosen = {name for _, name in sorted(zip(words, names, strict=True))[:count]}
    ordered = sorted(zip(names, files, strict=True), key=lambda pair: pair[0])
    return (
        [file for name, file in ordered if name not in chosen],
        [file for name, file in ordered if name in chosen],
    )


def check_classes(tree: Tree, where: str, expected: tuple[str, ...] | None) -> None:
    """Refuse a tree whose splits do not fit together, or not to the `expected` classes.

    A class of one's own may lack test pictures: it is trained, and nothing is said of how well.

    Raises:
        UserError: a class is missing or too many; it is named.
    """
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
    if len(train) == 1:
        raise UserError(f"{where}: {min(train)!r} is the only class; two or more are needed")


def _visible(files: Iterable[Member]) -> Iterator[Member]:
    """Leave out what programs put beside the pictures.

    Raises:
        UserError: the name of a folder is not UTF-8.
    """
    folders: set[Root] = set()
    for member in files:
        hidden = "/." in f"/{member.name.removeprefix('./')}" or "__MACOSX/" in member.name
        if hidden:
            continue
        folder = member.place, member.name.rpartition("/")[0]
        if folder not in folders:
            folders.add(folder)
            _refuse_undecodable(str(Member(*folder)))
        yield member


def _refuse_undecodable(path: str) -> None:
    """Refuse a name that neither a page nor a configuration can hold; a class is called by it."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise UserError(f"{shown}: the name is not UTF-8; rename it") from error


def _in_order(labels: Mapping[str, list[Member]]) -> dict[str, list[Member]]:
    return {label: sorted(files, key=lambda member: member.name) for label, files in labels.items()}


def _refuse_two_sets(roots: set[Root], what: str) -> None:
    """Two data sets that lie side by side are never merged."""
    if len(roots) > 1:
        first, second, *_ = sorted(str(Member(*root)) for root in roots)
        raise UserError(f"{first} and {second} both hold {what}; keep one of the two")


def _refuse_empty(labels: Mapping[str, Sequence[Member]], where: str, lead: str = "") -> None:
    empty = sorted(label for label, files in labels.items() if not files)
    if empty:
        raise UserError(f"{where}: no picture in {lead}{empty[0]}; add some or remove the class")
