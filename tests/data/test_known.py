"""A data set that was looked through is opened without looking again, unless something changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fasttrain.config import Data, override
from fasttrain.data import folders, known, sources
from fasttrain.data.cifar import CifarSource
from fasttrain.data.shapes import ShapesSource
from fasttrain.data.sources import open_dataset, open_here
from fasttrain.data.store import silent, store_folder
from fasttrain.use.prepare import prepare
from tests.data.test_cifar import Publish, make_batches, publish
from tests.data.test_folders import GOOD, picture, write_folder, write_zip

__all__ = ["publish"]  # a fixture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known.time, "time_ns", lambda: later(10))
    return tmp_path / "cache"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each time that pictures were listed or an archive was hashed."""
    seen: list[object] = []

    def counting(function: Callable[..., object]) -> Callable[..., object]:
        return lambda *args, **more: (seen.append(args), function(*args, **more))[1]

    monkeypatch.setattr(folders, "find", counting(folders.find))
    monkeypatch.setattr(CifarSource, "key", counting(CifarSource.key))
    return seen


def later(seconds: int) -> int:
    return int((time.time() + seconds) * 1e9)


def some(path: Path) -> Data:
    return Data(dataset="folder", path=path)


def test_a_zip_is_listed_once(tmp_path: Path, looks: list[object]) -> None:
    data = some(write_zip(tmp_path / "some.zip", GOOD))
    keys = {open_dataset(data).key for _ in range(3)}
    assert (len(keys), len(looks)) == (1, 1)


def test_so_is_one_that_is_only_looked_for_here(
    tmp_path: Path, looks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = some(write_zip(tmp_path / "some.zip", GOOD))
    keys = {store and store.key for store in (open_here(data) for _ in range(3))}
    assert (len(keys), len(looks)) == (1, 1)
    assert open_here(Data()) is None  # and nothing was downloaded
    monkeypatch.setattr(sources, "ShapesSource", lambda: ShapesSource(train=20, test=10))
    assert open_here(Data(dataset="shapes")) is not None


def test_what_was_prepared_by_its_name_is_not_listed_again(
    tmp_path: Path, looks: list[object]
) -> None:
    path = write_zip(tmp_path / "some.zip", GOOD)
    prepared = prepare(["data.dataset=folder", override("data.path", str(path))], 0.2, silent)
    assert open_dataset(some(path)).key == prepared.store.key
    assert len(looks) == 1


def test_an_archive_is_hashed_once(publish: Publish, looks: list[object]) -> None:
    data = Data(path=publish(make_batches(), folder=False).path)
    keys = {open_dataset(data).key for _ in range(3)}
    assert (len(keys), len(looks)) == (1, 1)


def test_a_folder_is_listed_each_time(tmp_path: Path, looks: list[object]) -> None:
    """What changes in a file in it cannot be seen from the folder."""
    data = some(write_folder(tmp_path / "some", GOOD))
    open_dataset(data)
    open_dataset(data)
    assert len(looks) == 2


def test_one_written_anew_is_listed_anew_though_size_and_time_agree(
    tmp_path: Path, looks: list[object]
) -> None:
    path = write_zip(tmp_path / "some.zip", GOOD)
    before = path.stat()
    open_dataset(some(path))
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    open_dataset(some(path))
    assert len(looks) == 2


def test_what_has_only_just_changed_is_not_remembered(
    tmp_path: Path, looks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = some(write_zip(tmp_path / "some.zip", GOOD))
    monkeypatch.setattr(known.time, "time_ns", lambda: later(0))
    open_dataset(data)
    open_dataset(data)
    assert len(looks) == 2


def test_what_changed_is_seen(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "some.zip", GOOD)
    first = open_dataset(some(path))
    name = next(iter(GOOD))
    write_zip(path, {**GOOD, name: picture(99, (8, 6))})
    assert open_dataset(some(path)).key != first.key


def test_other_settings_are_other_content(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "some.zip", GOOD)
    sizes = [open_dataset(some(path)).size]
    sizes.append(open_dataset(Data(dataset="folder", path=path, size=(9, 9))).size)
    assert sizes == [(8, 6), (9, 9)]


def test_a_store_that_is_damaged_or_gone_is_made_anew(tmp_path: Path, looks: list[object]) -> None:
    data = some(write_zip(tmp_path / "some.zip", GOOD))
    key = open_dataset(data).key
    images = store_folder("folder", key) / "train-images.npy"
    images.write_bytes(images.read_bytes()[:-1])
    assert open_dataset(data).key == key
    shutil.rmtree(images.parent)
    assert open_dataset(data).key == key
    assert len(looks) == 3


def test_other_divisions_are_other_content(tmp_path: Path) -> None:
    files = {f"{name}/{index}.png": picture(index, (8, 8)) for name in "ab" for index in range(9)}
    path = write_zip(tmp_path / "some.zip", files)
    divided = [(0.3, 0), (0.3, 1), (0.6, 0)]
    keys = {
        open_dataset(Data(dataset="folder", path=path, test_share=share, split_seed=seed)).key
        for share, seed in divided
    }
    assert len(keys) == 3


def test_where_nothing_can_be_kept_nothing_is(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    known.remember("stamp", "key")
    assert known.recall("stamp") is None


def test_what_is_not_there_has_no_stamp(tmp_path: Path) -> None:
    assert known.stamp([tmp_path / "gone"], ()) is None
    assert known.stamp([], ()) is None
