"""A prepared store is whole, found again, and never trusted without its checksums."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasttrain.data import store as store_module
from fasttrain.data.store import (
    Content,
    Split,
    Store,
    cache_folder,
    channel_statistics,
    content_key,
    let_go,
    obtain,
    open_store,
    sweep,
)
from fasttrain.errors import UserError

CLASSES = ("cat", "dog", "eel")


def split(count: int, seed: int) -> Split:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    return Split(images, generator.integers(0, len(CLASSES), count).astype(np.int64))


def content() -> Content:
    return CLASSES, {"train": split(40, 1), "test": split(11, 2)}


class Source:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> Content:
        self.reads += 1
        return content()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def store(source: Source, tmp_path: Path) -> Store:
    return obtain("pets", "k1", source, tmp_path)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def flip_bit(file: Path, position: int) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[position] ^= 1
    file.write_bytes(damaged)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    about = json.loads((folder / "store.json").read_text())
    change(about)
    (folder / "store.json").write_text(json.dumps(about))


def is_whole(store: Store) -> bool:
    _, splits = content()
    return all(
        np.array_equal(found.images, expected.images)
        and np.array_equal(found.labels, expected.labels)
        for found, expected in ((store.train, splits["train"]), (store.test, splits["test"]))
    )


# Prepared once, found again


def test_a_store_holds_what_the_source_gave(store: Store, tmp_path: Path) -> None:
    assert is_whole(store)
    assert (store.name, store.key, store.classes) == ("pets", "k1", CLASSES)
    assert store.folder == tmp_path / "stores" / "pets-k1"
    assert store.size == (6, 5)
    assert store.train.images.dtype == np.uint8
    assert store.train.labels.dtype == np.int64


def test_the_pictures_are_mapped_and_cannot_be_changed(store: Store) -> None:
    assert isinstance(store.train.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.train.images[0] = 0


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="counted by Linux")
def test_pages_that_are_let_go_take_no_memory_and_come_back(tmp_path: Path) -> None:
    images = np.arange(300 * 4096 * 3, dtype=np.uint8).reshape(300, 64, 64, 3)
    split = Split(images, np.zeros(300, dtype=np.int64))
    opened = obtain("big", "k1", lambda: (CLASSES, {"train": split, "test": split}), tmp_path)
    part = opened.train.images[10:]
    total = int(part.sum(dtype=np.int64))
    assert mapped_kilobytes(opened.folder) > 3000
    let_go(part)
    assert mapped_kilobytes(opened.folder) == 0
    assert int(part.sum(dtype=np.int64)) == total
    let_go(images)  # mapped from nowhere: nothing happens
    assert np.array_equal(opened.train.images, images)


def mapped_kilobytes(folder: Path) -> int:
    """How much of the training pictures this process has in memory."""
    areas = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    mine = [area for area in areas if str(folder / "train-images.npy") in area]
    return sum(int(re.findall(r"^Rss: +([0-9]+) kB", area, re.M)[0]) for area in mine)


def test_the_statistics_are_those_of_the_training_split(store: Store) -> None:
    pixels = store.train.images.reshape(-1, 3).astype(np.float64)
    assert store.mean == pytest.approx(pixels.mean(0), rel=1e-12)
    assert store.std == pytest.approx(pixels.std(0), rel=1e-12)


def test_a_prepared_store_is_not_prepared_again(
    store: Store, source: Source, tmp_path: Path
) -> None:
    again = obtain("pets", "k1", source, tmp_path)
    assert source.reads == 1
    assert is_whole(again)
    assert (again.mean, again.std) == (store.mean, store.std)


def test_another_key_or_name_is_another_store(store: Store, source: Source, tmp_path: Path) -> None:
    others = [obtain("pets", "k2", source, tmp_path), obtain("cars", "k1", source, tmp_path)]
    assert source.reads == 3
    assert len({store.folder, *(other.folder for other in others)}) == 3


def test_a_content_key_follows_its_parts() -> None:
    keys = [content_key(*parts) for parts in (("a", 1), ("a", 2), ("a1",), ("a", "1"), ())]
    assert len(set(keys)) == len(keys)
    assert content_key("a", 1) == keys[0]


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Source
) -> None:
    monkeypatch.setenv("FASTTRAIN_CACHE", str(tmp_path / "elsewhere"))
    assert obtain("pets", "k1", source).folder.is_relative_to(tmp_path / "elsewhere")
    monkeypatch.delenv("FASTTRAIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / "fasttrain"


# Damage


@pytest.mark.parametrize(
    "file", ["train-images.npy", "train-labels.npy", "test-images.npy", "test-labels.npy"]
)
@pytest.mark.parametrize("position", [0, 100, -1])  # its magic, its header, its last value
def test_a_flipped_bit_is_found_and_the_store_prepared_again(
    store: Store, source: Source, tmp_path: Path, file: str, position: int
) -> None:
    flip_bit(store.folder / file, position)
    message = refusal(lambda: open_store(store.folder))
    assert message.startswith(f"{store.folder / file}: the checksum does not hold; delete")
    assert is_whole(obtain("pets", "k1", source, tmp_path))
    assert source.reads == 2


@pytest.mark.parametrize("file", ["train-images.npy", "test-labels.npy", "store.json"])
@pytest.mark.parametrize("left", [0, 50, None])
def test_a_truncated_or_missing_file_is_found_and_the_store_prepared_again(
    store: Store, source: Source, tmp_path: Path, file: str, left: int | None
) -> None:
    path = store.folder / file
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
    assert str(store.folder) in refusal(lambda: open_store(store.folder))
    assert is_whole(obtain("pets", "k1", source, tmp_path))
    assert source.reads == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about["mean"].reverse(),
        lambda about: about.update(std=[1.0, 1.0, 1.0]),
        lambda about: about["classes"].reverse(),
        lambda about: about.update(key="k2"),
        lambda about: about["sha256"].clear(),
    ],
    ids=["mean", "std", "classes", "key", "sha256"],
)
def test_what_a_store_says_of_itself_is_checked_too(
    store: Store, source: Source, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    rewrite(store.folder, change)
    message = refusal(lambda: open_store(store.folder))
    assert message.startswith(f"{store.folder / 'store.json'}: the checksum does not hold")
    again = obtain("pets", "k1", source, tmp_path)
    assert (again.mean, again.std, again.classes) == (store.mean, store.std, store.classes)


@pytest.mark.parametrize("about", ["[]", "5", "{}", '{"format": 1, "sha256": []}', "not json"])
def test_a_description_that_is_none_is_refused(store: Store, about: str) -> None:
    (store.folder / "store.json").write_text(about)
    assert str(store.folder) in refusal(lambda: open_store(store.folder))


def test_a_store_of_another_format_is_refused_and_prepared_again(
    store: Store, source: Source, tmp_path: Path
) -> None:
    rewrite(store.folder, lambda about: about.update(format=99))
    message = refusal(lambda: open_store(store.folder))
    assert message == f"{store.folder}: a store of format 99, not 1"
    assert is_whole(obtain("pets", "k1", source, tmp_path))


def test_a_pickle_in_place_of_an_array_is_never_opened(store: Store, tmp_path: Path) -> None:
    file = store.folder / "train-labels.npy"
    np.save(file, np.array([Bomb(str(tmp_path / "it-ran"))], dtype=object), allow_pickle=True)
    reseal(store.folder)
    assert "not a whole prepared store" in refusal(lambda: open_store(store.folder))
    assert not (tmp_path / "it-ran").exists()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (self.path,)


def reseal(folder: Path) -> None:
    """Make the checksums fit what lies there."""
    about = json.loads((folder / "store.json").read_text())
    for name in about["sha256"]:
        about["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    about.pop("seal")
    about["seal"] = content_key(json.dumps(about))
    (folder / "store.json").write_text(json.dumps(about))


def test_pictures_without_labels_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    whole = split(40, 1)
    short = Split(whole.images, whole.labels[:-1])
    message = refusal(
        lambda: obtain("pets", "k1", lambda: (CLASSES, {"train": whole, "test": short}), tmp_path)
    )
    assert "40 test pictures but 39 labels" in message
    assert not (tmp_path / "stores" / "pets-k1").exists()


# A source that fails


@pytest.mark.parametrize("error", [UserError("unusable"), KeyboardInterrupt(), OSError(5, "I/O")])
def test_a_source_that_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def read() -> Content:
        raise error

    with pytest.raises(type(error)) as caught:
        obtain("pets", "k1", read, tmp_path)
    assert caught.value is error
    assert [entry.name for entry in (tmp_path / "stores").iterdir()] == [".pets-k1.lock"]


def test_a_source_that_may_not_be_read_is_not_called_a_cache_that_cannot_be_written(
    tmp_path: Path,
) -> None:
    def read() -> Content:
        raise PermissionError(13, "Permission denied", "/the/source")

    with pytest.raises(PermissionError, match="/the/source"):
        obtain("pets", "k1", read, tmp_path)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, source: Source) -> None:
    (tmp_path / "file").touch()
    message = refusal(lambda: obtain("pets", "k1", source, tmp_path / "file"))
    assert message.startswith(f"cannot write {tmp_path / 'file' / 'stores' / 'pets-k1'}: ")
    assert source.reads == 0


# Several processes, and killed ones

PREPARE = """
import os, sys, time
from pathlib import Path
from fasttrain.data.store import obtain
from tests.data.test_store import content, is_whole

def read():
    with open(sys.argv[2], "a") as log:
        log.write("read\\n")
    time.sleep(0.5)
    return content()

store = obtain("pets", "k1", read, Path(sys.argv[1]))
assert is_whole(store)
mapped = os.stat(store.train.images.filename)
print(mapped.st_dev, mapped.st_ino)
"""
REPOSITORY = Path(__file__).parent.parent.parent


def test_processes_that_ask_at_once_prepare_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "cache"), str(log)]
    asking = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    mapped = {process.communicate()[0] for process in asking}
    assert [process.returncode for process in asking] == [0, 0, 0]
    assert log.read_text() == "read\n"
    assert len(mapped) == 1  # one file, whose pages the system keeps once for all of them


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from fasttrain.data.store import obtain
from tests.data.test_store import content

save, saved = np.save, []

def save_some(file, array):
    if len(saved) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    saved.append(file)
    save(file, array)

np.save = save_some
obtain("pets", "k1", content, Path(sys.argv[1]))
"""


def test_a_killed_preparation_leaves_nothing_under_its_name_and_is_swept_away(
    tmp_path: Path, source: Source
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, cwd=REPOSITORY).returncode == -signal.SIGKILL
    left = sorted(entry.name for entry in (tmp_path / "stores").iterdir())
    assert len(left) == 2
    assert left[0].startswith(".pets-k1.")
    assert is_whole(obtain("pets", "k1", source, tmp_path))
    left = sorted(entry.name for entry in (tmp_path / "stores").iterdir())
    assert left == [".pets-k1.lock", "pets-k1"]


def test_only_what_was_left_aside_of_that_name_is_swept_away(tmp_path: Path) -> None:
    for name in (".pets-k1.a.part", ".pets-k2.a.part", "pets-k1", ".pets-k1.lock"):
        (tmp_path / name).mkdir()
    sweep(tmp_path / "pets-k1")
    left = sorted(entry.name for entry in tmp_path.iterdir())
    assert left == [".pets-k1.lock", ".pets-k2.a.part", "pets-k1"]


# Statistics


def random_images(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "images",
    [
        random_images(7, 3, 4, 3),
        random_images(4096 * 2 + 5, 2, 2, 3),  # several pieces, the last one short
        random_images(5, 4, 4, 3) // 2 + np.array([0, 60, 120], dtype=np.uint8),
        np.full((3, 2, 2, 3), 255, dtype=np.uint8),
        np.zeros((1, 1, 1, 3), dtype=np.uint8),
    ],
    ids=["small", "pieces", "channels", "white", "black"],
)
def test_the_statistics_are_those_that_numpy_computes(
    images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_COUNTED", 4096 * 2 * 2)
    mean, std = channel_statistics(images)
    pixels = images.reshape(-1, 3).astype(np.float64)
    assert mean == pytest.approx(pixels.mean(0), rel=1e-12)
    assert std == pytest.approx(pixels.std(0).clip(min=1.0), rel=1e-12)


def test_the_statistics_of_large_pictures_take_little_memory() -> None:
    images = np.zeros((600, 128, 128, 3), dtype=np.uint8)
    tracemalloc.start()
    channel_statistics(images)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.5 * images.nbytes


def test_the_statistics_do_not_depend_on_the_order_of_the_pictures() -> None:
    images = random_images(5000, 2, 2, 3)
    assert channel_statistics(images) == channel_statistics(images[::-1])


def test_a_constant_channel_has_a_deviation_that_can_be_divided_by() -> None:
    _, deviations = channel_statistics(np.full((3, 4, 4, 3), 7, dtype=np.uint8))
    assert deviations == [1.0, 1.0, 1.0]
