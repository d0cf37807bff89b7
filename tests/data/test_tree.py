"""Pictures that lie at `<class>/<picture>` are divided by their names and a seed alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from fasttrain.config import Data
from fasttrain.data import folders
from fasttrain.data.randomness import random_words_by_name
from fasttrain.data.sources import open_dataset
from fasttrain.data.store import SPLITS, SplitName, silent
from fasttrain.data.tree import Division, UndividedError
from fasttrain.errors import UserError
from tests.data.test_folders import picture, write_folder, write_zip

PICTURE = picture(0)
COUNTS = {"ant": 40, "bee": 10, "cat": 3, "dog": 2}
FILES = {f"{name}/{i}.png": PICTURE for name, count in COUNTS.items() for i in range(count)}
Halves = dict[str, dict[str, set[str]]]


def divided(place: Path, share: float = 0.2, seed: int = 0) -> Halves:
    """The files' names by split and class."""
    found = folders.find([place], division=Division(share, seed)).tree
    return {
        split: {name: {m.name.split("/")[-1] for m in members} for name, members in labels.items()}
        for split, labels in found.items()
    }


def test_every_class_is_divided_by_the_share(tmp_path: Path) -> None:
    found = divided(write_zip(tmp_path / "a.zip", FILES))
    counts = {split: {name: len(files) for name, files in found[split].items()} for split in SPLITS}
    assert counts["test"] == {"ant": 8, "bee": 2, "cat": 1, "dog": 1}
    assert counts["train"] == {"ant": 32, "bee": 8, "cat": 2, "dog": 1}
    for name in COUNTS:
        assert not found["train"][name] & found["test"][name]
    most = divided(tmp_path / "a.zip", share=0.99)
    assert {name: len(files) for name, files in most["train"].items()} == dict.fromkeys(COUNTS, 1)


def test_the_division_does_not_depend_on_where_the_set_lies_nor_on_the_order(
    tmp_path: Path,
) -> None:
    wanted = divided(write_folder(tmp_path / "a", FILES))
    shuffled = list(FILES.items())
    shuffled = shuffled[1::2] + shuffled[::-2]
    assert divided(shutil.copytree(tmp_path / "a", tmp_path / "b")) == wanted
    assert divided(write_zip(tmp_path / "a.zip", dict(shuffled))) == wanted
    assert divided(write_zip(tmp_path / "b.zip", FILES, lead="some/where/")) == wanted


def test_another_seed_divides_otherwise(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", FILES)
    assert divided(place, seed=0) == divided(place, seed=0) != divided(place, seed=1)


def test_classes_are_divided_independently_of_each_other(tmp_path: Path) -> None:
    twins = {f"{name}/{i}.png": PICTURE for name in ("ant", "bee") for i in range(40)}
    found = divided(write_zip(tmp_path / "a.zip", twins))
    assert found["test"]["ant"] != found["test"]["bee"]
    alone = {**twins, "eel/1.png": PICTURE, "eel/2.png": PICTURE}
    again = divided(write_zip(tmp_path / "b.zip", alone))
    assert {name: again["test"][name] for name in ("ant", "bee")} == found["test"]


def test_a_picture_that_is_added_moves_at_most_one_other(tmp_path: Path) -> None:
    files = {name: FILES[name] for name in FILES if name.startswith(("ant", "bee"))}
    before, moved = divided(write_zip(tmp_path / "a.zip", files))["test"]["ant"], 0
    for count in range(30):
        files[f"ant/new{count}.png"] = PICTURE
        after = divided(write_zip(tmp_path / "a.zip", files))["test"]["ant"]
        old = {name for name in after if name != f"new{count}.png"}
        assert len(old ^ before) <= 1
        moved += len(old ^ before)
        before = after
    assert moved < 20


def test_a_word_depends_on_its_name_and_seed_only() -> None:
    words = random_words_by_name(0, "x", ["a", "b", "\udc80"]).tolist()
    assert random_words_by_name(0, "x", ["b", "a"]).tolist() == words[1::-1]
    assert len({*words, *random_words_by_name(1, "x", ["a"]).tolist(),
                *random_words_by_name(0, "y", ["a"]).tolist()}) == 5  # fmt: skip
    # The same for ever: a run that is begun today is resumed on the same pictures.
    assert random_words_by_name(2**63 - 1, "division", ["cat/1.png"]).tolist() == [
        8332364969232468271
    ]


def test_the_division_is_part_of_the_key(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", FILES)
    divisions = [Division(0.2, 0), Division(0.2, 1), Division(0.3, 0)]
    assert len({folders.find([place], division=division).key() for division in divisions}) == 3


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_set_without_splits_is_prepared_from_the_configuration(form: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "set", FILES)
    write_zip(tmp_path / "set.zip", FILES, lead="set/")
    path = tmp_path / ("set.zip" if form == "zip" else "set")
    data = {"dataset": "folder", "path": path, "size": 12, "test_share": 0.5, "split_seed": 4}
    store = open_dataset(Data.model_validate(data))
    assert store.classes == tuple(COUNTS)
    assert store.size == (12, 12)
    assert [len(store.train.labels), len(store.test.labels)] == [27, 28]
    with pytest.raises(
        UserError, match=r"set.*: neither train nor test at .* data\.test_share=0\.2"
    ):
        open_dataset(Data(dataset="folder", path=path))


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"cat/1.png": PICTURE}, "class 'cat' has one picture"),
        ({"cat/1.png": PICTURE, "cat/2.png": PICTURE}, "'cat' is the only class"),
        ({"cat/a.txt": b""}, "no pictures at <class>/<picture>"),
        ({**FILES, "eel/": b""}, "no picture in eel; add some or remove the class"),
        ({**FILES, "eel/a.txt": b""}, "no picture in eel"),
        ({**FILES, "eel/1.png": PICTURE}, "class 'eel' has one picture, and needs one for train"),
        ({**FILES, "ant/deep/1.png": PICTURE}, "ant/deep/1.png: does not lie at <class>/<pict"),
        ({**FILES, "1.png": PICTURE}, "1.png: does not lie at <class>/<picture>"),
        (
            {"train/a/1.png": PICTURE, "test/a/1.png": PICTURE},
            "/<class>/<picture>, so the set is divided already; leave data",
        ),
        (
            {"x/a/1.png": PICTURE, "y/b/1.png": PICTURE},
            "both hold classes; keep one of the two",
        ),
    ],
)
def test_a_set_that_cannot_be_divided_is_explained(
    form: str, files: Mapping[str, bytes], complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "set"
    place = write_folder(path, files) if form == "folder" else write_zip(path, files)
    with pytest.raises(UserError) as caught:
        folders.find([place], division=Division(0.2, 0)).read(silent)
    assert complaint in str(caught.value)
    assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("split", SPLITS)
def test_one_split_alone_can_be_divided(split: SplitName, form: str, tmp_path: Path) -> None:
    files = {f"{split}/{name}": content for name, content in FILES.items()}
    path = tmp_path / f"set{'.zip' if form == 'zip' else ''}"
    place = write_folder(path, files) if form == "folder" else write_zip(path, files)
    with pytest.raises(UserError, match=r"; add them, or set data\.test_share=0\.2 to divide"):
        open_dataset(Data(dataset="folder", path=place))
    store = open_dataset(Data(dataset="folder", path=place, test_share=0.5))
    assert store.classes == tuple(COUNTS)
    assert [len(store.train.labels), len(store.test.labels)] == [27, 28]


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": PICTURE for name in ("car", "train") for i in range(5)}
    path = write_folder(tmp_path / "set", files)
    store = open_dataset(Data(dataset="folder", path=path, test_share=0.2))
    assert store.classes == ("car", "train")


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_class_that_is_named_train_leads_to_the_share_too(form: str, tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": PICTURE for name in ("train", "car") for i in range(5)}
    path = tmp_path / f"set{'.zip' if form == 'zip' else ''}"
    place = write_folder(path, files) if form == "folder" else write_zip(path, files)
    with pytest.raises(UndividedError, match=r"set data\.test_share=0\.2"):
        open_dataset(Data(dataset="folder", path=place))


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize(
    "files",
    [
        {"train/1.png": PICTURE, "test/1.png": PICTURE},
        {"train/1.png": PICTURE, "train/a/1.png": PICTURE, "a/1.png": PICTURE},
    ],
    ids=["no classes", "divided already"],
)
def test_pictures_beside_the_classes_of_a_split_are_named(
    form: str, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"set{'.zip' if form == 'zip' else ''}"
    place = write_folder(path, files) if form == "folder" else write_zip(path, files)
    with pytest.raises(UserError, match=r"train/1\.png: does not lie at <split>/<class>/<picture>"):
        open_dataset(Data(dataset="folder", path=place))


@pytest.mark.parametrize("share", [None, 0.2])
@pytest.mark.parametrize("where", ["set/cl\udce9/{}.png", "p\udce9th/set/b/{}.png"])
def test_folders_whose_names_are_not_utf_8_are_named(
    where: str, share: float | None, tmp_path: Path
) -> None:
    path = tmp_path / where.split("set", maxsplit=1)[0] / "set"
    lead = ("train/", "test/") if share is None else ("",)
    of_class = where.split("set/")[1]
    files = {split + name.format(i): PICTURE for split in lead for name in (of_class, "a/{}.png")
             for i in range(5)}  # fmt: skip
    write_folder(path, files)
    with pytest.raises(UserError, match=r"\\xe9.*: the name is not UTF-8; rename it") as caught:
        open_dataset(Data(dataset="folder", path=path, test_share=share))
    str(caught.value).encode()  # it can be shown


def test_pictures_may_be_called_anything(tmp_path: Path) -> None:
    files = {f"{name}/\udce9{i}.png": PICTURE for name in "ab" for i in range(5)}
    path = write_folder(tmp_path / "set", files)
    assert open_dataset(Data(dataset="folder", path=path, test_share=0.2)).classes == ("a", "b")


def test_what_programs_leave_behind_is_no_class(tmp_path: Path) -> None:
    junk = {
        ".cache/a.png": b"",
        "__MACOSX/ant/a.png": b"",
        "ant/.hidden.png": b"",
        "notes.txt": b"",
    }
    place = write_folder(tmp_path / "set", {**FILES, **junk})
    assert set(divided(place)["train"]) == set(COUNTS)
