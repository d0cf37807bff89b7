"""Where data is looked for, what is said when it is not there, and what a kill leaves behind."""

from __future__ import annotations

import errno
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets.utils import download_url

from fasttrain.config import Data, DatasetName
from fasttrain.data import cifar, download, sources
from fasttrain.data.cifar import CifarSource
from fasttrain.data.folders import PicturesSource
from fasttrain.data.shapes import ShapesSource
from fasttrain.data.sources import open_dataset
from fasttrain.errors import UserError
from tests.data.test_cifar import Publish, make_batches, publish
from tests.data.test_folders import GOOD, picture, write_folder, write_zip

__all__ = ["publish"]  # a fixture

ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10 = {
    f"{split}/{name}/{index}.png": picture(index, (32, 32))
    for index, name in enumerate(cifar.CLASSES["cifar10"])
    for split in ("train", "test")
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTTRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs that were asked for; there is no network."""
    asked: list[str] = []

    def no_network(url: str, *_: object) -> None:
        asked.append(url)
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    return asked


def refusal(**settings: object) -> str:
    with pytest.raises(UserError) as caught:
        open_dataset(Data.model_validate(settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def halves(root: Path) -> None:
    for split in ("train", "test"):
        files = {name: content for name, content in CIFAR10.items() if name.startswith(split)}
        write_zip(root / f"cifar10-{split}.zip", files, lead="cifar10/")


FORMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda root: write_folder(root, CIFAR10), "."),
    "a folder one level down": (lambda root: write_folder(root / "cifar10", CIFAR10), "."),
    "a zip": (lambda root: write_zip(root / "any.zip", CIFAR10), "any.zip"),
    "a zip in a folder": (lambda root: write_zip(root / "cifar10.zip", CIFAR10), "."),
    "a zip one level down": (lambda root: write_zip(root / "cifar10/cifar10.zip", CIFAR10), "."),
    "a zip for each split": (halves, "."),
}


@pytest.mark.parametrize("form", FORMS)
def test_pictures_are_found_in_every_form(form: str, tmp_path: Path) -> None:
    make, where = FORMS[form]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    store = open_dataset(Data(path=tmp_path / "data" / where))
    assert store.classes == cifar.CLASSES["cifar10"]
    assert store.train.labels.tolist() == store.test.labels.tolist() == list(range(10))
    assert store.size == (32, 32)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("where", ["itself", "its folder", "one level up"])
def test_the_official_form_is_found(
    publish: Publish, tmp_path: Path, folder: bool, where: str
) -> None:
    source = publish(make_batches(), folder=folder)
    home = tmp_path / "data" / "cifar10"
    home.mkdir(parents=True)
    path = source.path.rename(home / source.path.name)
    given = {"itself": path, "its folder": home, "one level up": home.parent}[where]
    assert sources.find_source(Data(path=given)) == CifarSource("cifar10", path)
    assert open_dataset(Data(path=given)).train.images.shape == (12, 32, 32, 3)


def test_the_folder_itself_by_a_relative_path(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(publish(make_batches(), folder=True).path)
    assert len(open_dataset(Data(path=Path())).test.images) == 6


def test_any_classes_for_a_folder_s_own_set(tmp_path: Path) -> None:
    for place in (
        write_folder(tmp_path / "a", GOOD),
        write_zip(tmp_path / "b/some.zip", GOOD),
        write_zip(tmp_path / "c/only.zip", GOOD).parent,
    ):
        store = open_dataset(Data(dataset="folder", path=place))
        assert (store.name, store.classes, store.size) == ("folder", ("ant", "cat", "dog"), (8, 6))


def test_the_setting_comes_before_the_environment_and_that_before_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / "set", tmp_path / "environment", cache / "downloads"]
    for place in places:
        write_zip(place / "cifar10.zip", CIFAR10)

    def found(data: Data) -> Path:
        source = sources.find_source(data)
        assert isinstance(source, PicturesSource)
        return source.tree["train"]["cat"][0].place.parent

    monkeypatch.setenv("FASTTRAIN_DATA", str(places[1]))
    assert found(Data(path=places[0])) == places[0]
    assert found(Data()) == places[1]
    monkeypatch.setenv("FASTTRAIN_DATA", "")
    assert found(Data()) == places[2]


def test_nothing_else_is_taken_where_a_path_was_set(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, downloads: list[str]
) -> None:
    write_zip(cache / "downloads" / "cifar10.zip", CIFAR10)
    write_zip(tmp_path / "good" / "cifar10.zip", CIFAR10)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("FASTTRAIN_DATA", str(tmp_path / "good"))
    assert f"data.path={empty} holds no such data" in refusal(path=empty)
    assert f"data.path={empty}/no is not there" in refusal(path=empty / "no")
    monkeypatch.setenv("FASTTRAIN_DATA", str(empty))
    assert f"FASTTRAIN_DATA={empty} holds no such data" in refusal()
    assert downloads == []


@pytest.mark.parametrize("dataset", ["cifar100", "folder"])
def test_another_set_is_no_substitute(dataset: DatasetName, tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(b"")
    message = refusal(dataset=dataset, path=tmp_path)
    assert f"data.dataset={dataset}" in message


def test_other_classes_or_sizes_are_no_cifar10(tmp_path: Path) -> None:
    cow = {name.replace("/cat/", "/cow/"): content for name, content in CIFAR10.items()}
    message = refusal(path=write_folder(tmp_path / "cow", cow))
    assert "class 'cat' is missing in train" in message
    small = dict.fromkeys(CIFAR10, picture(0, (28, 28)))
    message = refusal(path=write_folder(tmp_path / "small", small))
    assert "0.png: 28x28 pixels, but this set's pictures have 32x32" in message


def test_home_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_zip(tmp_path / "a.zip", GOOD)
    assert len(open_dataset(Data(dataset="folder", path=Path("~/a.zip"))).test.images) == 2


@pytest.mark.parametrize("setting", ["data.path", "FASTTRAIN_DATA", "FASTTRAIN_CACHE"])
def test_a_home_of_nobody_is_one_line(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = "~nosuchuser/x"
    if setting != "data.path":
        monkeypatch.setenv(setting, where)
    message = refusal(**{"path": where} if setting == "data.path" else {})
    assert message.startswith(f"{setting}={where}: there is no home folder of that user; ")


def test_the_cache_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FASTTRAIN_CACHE", "~/short")
    monkeypatch.chdir(tmp_path)
    folder = write_zip(tmp_path / "a.zip", GOOD)
    store = open_dataset(Data(dataset="folder", path=folder))
    assert store.folder.is_relative_to(tmp_path / "short")
    assert not (tmp_path / "~").exists()


def test_a_name_that_is_too_long_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "n" * 300
    assert f"data.path={long}: cannot be read: File name too long" in refusal(path=long)
    monkeypatch.setenv("FASTTRAIN_DATA", long)
    assert "FASTTRAIN_DATA=nnn" in refusal()


def test_a_cache_that_cannot_be_looked_into_is_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)  # root, who may run this, may look anywhere

    message = refusal()

    assert message.startswith(f"the cache {cache}/downloads: cannot be read: Permission denied")
    assert message.endswith("set FASTTRAIN_CACHE to another folder")


def test_zips_that_are_hidden_are_no_data_and_the_case_of_their_names_is_nothing(
    tmp_path: Path,
) -> None:
    write_zip(tmp_path / "SET.ZIP", GOOD)
    (tmp_path / "._SET.ZIP").write_bytes(b"a Mac's")
    assert len(open_dataset(Data(dataset="folder", path=tmp_path)).test.images) == 2


def test_half_a_pair_of_zips_is_explained(tmp_path: Path) -> None:
    halves(tmp_path)
    (tmp_path / "cifar10-test.zip").unlink()
    assert "cifar10-train.zip: no test pictures" in refusal(path=tmp_path)


def test_a_folder_s_own_set_needs_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "set data.path=" in refusal(dataset="folder")
    monkeypatch.setenv("FASTTRAIN_DATA", str(write_zip(tmp_path / "a.zip", GOOD)))
    assert open_dataset(Data(dataset="folder")).classes == ("ant", "cat", "dog")


def test_shapes_need_no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "ShapesSource", functools.partial(ShapesSource, 40, 20))
    monkeypatch.setenv("FASTTRAIN_DATA", str(tmp_path / "of another set"))
    store = open_dataset(Data(dataset="shapes"))
    assert (len(store.train.images), len(store.test.images)) == (40, 20)
    assert "reads no data.path" in refusal(dataset="shapes", path=tmp_path)


def test_a_second_opening_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data(dataset="folder", path=write_zip(tmp_path / "a.zip", GOOD))
    first = open_dataset(data)
    with monkeypatch.context() as patch:
        patch.setattr(PicturesSource, "read", None)
        assert open_dataset(data).folder == first.folder
    write_zip(tmp_path / "a.zip", {**GOOD, "train/cat/a.png": picture(9)})
    changed = open_dataset(data)
    assert changed.folder != first.folder
    assert not np.array_equal(changed.train.images, first.train.images)


def test_no_data_and_no_network_tells_what_was_tried(cache: Path, downloads: list[str]) -> None:
    message = refusal()
    assert downloads == [cifar.published("cifar10").url]
    for part in (
        *("data.path and FASTTRAIN_DATA are not set", f"{cache}/downloads holds none"),
        *(downloads[0], "no route to host"),
        *("set data.path=", "FASTTRAIN_DATA=", f"put {ARCHIVE} into {cache}/downloads"),
        "data.dataset=shapes",
    ):
        assert part in message
    assert _visible(cache / "downloads") == []


class _Server(ThreadingHTTPServer):
    """Serves one file and counts the requests; without content it never answers."""

    content: bytes | None
    requests: int
    stop: threading.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{ARCHIVE}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.content is None:
            self.server.stop.wait()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """A server of the archive, on this machine, that torchvision really downloads from."""
    archive = publish(make_batches()).path
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.content, server.requests, server.stop = archive.read_bytes(), 0, threading.Event()
        archive.unlink()
        about = replace(cifar.published("cifar10"), url=server.url)
        monkeypatch.setattr(cifar, "published", lambda _dataset: about)
        monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.stop.set()
        server.shutdown()


def test_a_download_is_kept_and_not_repeated(server: _Server, cache: Path) -> None:
    left = cache / "downloads" / f".{ARCHIVE}.x.part"
    left.mkdir(parents=True)  # of a process that was killed
    assert len(open_dataset(Data()).train.images) == 12
    assert server.requests > 0
    server.requests = 0
    assert len(open_dataset(Data()).train.images) == 12
    download.download("cifar10", cache / "downloads")  # as by a process that waited for this one
    assert server.requests == 0
    assert _visible(cache / "downloads") == [ARCHIVE]
    assert not left.exists()


def test_a_download_that_came_damaged_is_not_kept(server: _Server, cache: Path) -> None:
    assert server.content is not None
    server.content = server.content[:-1]
    assert f"the download of {server.url} failed (File not found or corrupted.)" in refusal()
    assert _visible(cache / "downloads") == []


def test_a_silent_server_is_given_up(
    server: _Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = None
    monkeypatch.setattr(download, "_PATIENCE", 0.2)
    assert "timed out" in refusal()
    assert _visible(cache / "downloads") == []
    assert socket.getdefaulttimeout() is None


def test_a_damaged_download_by_hand_is_refused(publish: Publish, cache: Path) -> None:
    source = publish(make_batches())
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / ARCHIVE).write_bytes(source.path.read_bytes()[:-7])
    assert f"{cache}/downloads/{ARCHIVE}: the checksum" in refusal()


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# Prepares a set, and stands still in the middle of what the test asks for.
_PREPARE = """
import sys, time
from pathlib import Path
import numpy as np
from fasttrain.config import Data
from fasttrain.data.sources import open_dataset

def stand_still(*_):
    print("here", flush=True)
    time.sleep(600)

def progress(what, done, total):
    if sys.argv[2] == "read" and done >= 500:
        stand_still()

if sys.argv[2] == "write":
    save, saved = np.save, []
    def save_then_stop(path, array):
        save(path, array)
        saved.append(path)
        if len(saved) == 2:
            stand_still()
    np.save = save_then_stop
open_dataset(Data(dataset="folder", path=Path(sys.argv[1])), progress)
"""


@pytest.mark.parametrize("moment", ["read", "write"])
def test_a_kill_leaves_nothing_under_the_final_name(
    moment: str, tmp_path: Path, cache: Path
) -> None:
    many = {f"train/cat/{index}.png": GOOD["train/cat/a.png"] for index in range(1000)}
    folder = write_folder(tmp_path / "data", {**GOOD, **many})
    with subprocess.Popen(
        [sys.executable, "-c", _PREPARE, str(folder), moment],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(sources.__file__).parents[2])},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        child.kill()
        assert child.wait() == -signal.SIGKILL
    stores = cache / "stores"
    assert _visible(stores) == []
    assert len(list(stores.glob(".*.part"))) == (1 if moment == "write" else 0)

    store = open_dataset(Data(dataset="folder", path=folder))
    assert len(store.train.images) == 1005
    assert _visible(stores) == [store.folder.name]
    assert list(stores.glob(".*.part")) == []
