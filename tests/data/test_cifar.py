"""The official archives, on small ones made here as Python 2 wrote the real ones."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fasttrain.data import cifar
from fasttrain.data.cifar import CifarSource, Published
from fasttrain.data.store import silent
from fasttrain.errors import UserError

FOLDER = "cifar-10-batches-py"
BATCHES = ("data_batch_1", "data_batch_2", "test_batch")
COUNT = 6  # pictures in a batch


def _text(value: bytes) -> bytes:
    return b"T" + struct.pack("<I", len(value)) + value


def python2_batch(pixels: np.ndarray, labels: list[int], key: str = "labels") -> bytes:
    """Pickle a batch with the opcodes of Python 2 and numpy 1, whose strings are bytes."""
    numbers = b"".join(b"J" + struct.pack("<i", label) for label in labels)
    shape = b"".join(b"J" + struct.pack("<i", side) for side in pixels.shape)
    uint8 = (
        b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN"
        + 2 * b"J\xff\xff\xff\xff"
        + b"K\x00tb"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    array = empty + b"(K\x01(" + shape + b"t" + uint8 + b"\x89" + _text(pixels.tobytes()) + b"tb"
    items = _text(key.encode()) + b"](" + numbers + b"e" + _text(b"data") + array
    return b"\x80\x02}(" + items + b"u."


def make_batches(key: str = "labels") -> dict[str, bytes]:
    generator = np.random.default_rng(3)
    return {
        name: python2_batch(
            generator.integers(0, 256, (COUNT, 3072), dtype=np.uint8),
            generator.integers(0, 10, COUNT).tolist(),
            key,
        )
        for name in BATCHES
    }


def write_archive(
    path: Path, batches: dict[str, bytes], extra: tarfile.TarInfo | None = None
) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(_folder_entry())
        for name in sorted(batches, reverse=True):  # not in order, as in the real archive
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = len(batches[name])
            archive.addfile(info, io.BytesIO(batches[name]))
        if extra is not None:
            archive.addfile(extra)


def _folder_entry() -> tarfile.TarInfo:
    info = tarfile.TarInfo(FOLDER)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


Publish = Callable[..., CifarSource]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Write batches as an archive, or a folder, and publish their checksums."""

    def publish(
        batches: dict[str, bytes],
        extra: tarfile.TarInfo | None = None,
        folder: bool = False,
        cut: int | None = None,
        labels: str = "labels",
        published: dict[str, bytes] | None = None,
    ) -> CifarSource:
        path = tmp_path / (FOLDER if folder else "cifar-10-python.tar.gz")
        if folder:
            path.mkdir()
            for name, content in batches.items():
                (path / name).write_bytes(content)
        else:
            write_archive(path, batches, extra)
            path.write_bytes(path.read_bytes()[:cut])
        digests = {name: _md5((published or batches).get(name, b"")) for name in BATCHES}
        about = Published(
            url="https://example.invalid/cifar-10-python.tar.gz",
            md5="" if folder else _md5(path.read_bytes()),
            batches={
                "train": {name: digests[name] for name in BATCHES[:2]},
                "test": {BATCHES[2]: digests[BATCHES[2]]},
            },
            labels=labels,
        )
        monkeypatch.setattr(cifar, "published", lambda _dataset: about)
        return CifarSource("cifar10", path)

    return publish


def refusal(source: CifarSource) -> str:
    with pytest.raises(UserError) as caught:
        source.key()
        source.read(silent)
    message = str(caught.value)
    assert str(source.path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("folder", [False, True])
def test_pictures_and_labels_come_out_in_the_published_order(
    publish: Publish, folder: bool
) -> None:
    source = publish(make_batches(), folder=folder)
    classes, splits = source.read(silent)

    generator = np.random.default_rng(3)  # as make_batches
    wanted = []
    for _ in BATCHES:
        pixels = generator.integers(0, 256, (COUNT, 3072), dtype=np.uint8)
        wanted.append((pixels, generator.integers(0, 10, COUNT)))
    assert classes == cifar.CLASSES["cifar10"]
    train, test = splits["train"], splits["test"]
    assert train.images.shape == (2 * COUNT, 32, 32, 3)
    assert train.labels.tolist() == [*wanted[0][1], *wanted[1][1]]
    assert test.labels.tolist() == wanted[2][1].tolist()
    for channel, row, column in [(0, 0, 0), (1, 5, 7), (2, 31, 30)]:
        plane = channel * 1024 + row * 32 + column
        assert train.images[7, row, column, channel] == wanted[1][0][1, plane]
        assert test.images[0, row, column, channel] == wanted[2][0][0, plane]


def test_fine_labels(publish: Publish) -> None:
    source = publish(make_batches("fine_labels"), labels="fine_labels")
    assert len(source.read(silent)[1]["train"].labels) == 2 * COUNT


def test_progress_is_told_for_every_batch(publish: Publish) -> None:
    reports: list[tuple[str, int, int]] = []
    publish(make_batches()).read(lambda *report: reports.append(report))
    assert reports == [("reading cifar-10-python.tar.gz", done, 3) for done in (1, 2, 3)]


def test_the_key_follows_the_content(publish: Publish) -> None:
    batches = make_batches()
    first = publish(batches).key()
    assert publish(batches, folder=True).key() != first
    batches["test_batch"] = python2_batch(np.zeros((1, 3072), np.uint8), [0])
    assert publish(batches).key() != first


@pytest.mark.parametrize("offset", [0, -1])
def test_a_changed_byte_in_the_archive_is_refused(publish: Publish, offset: int) -> None:
    source = publish(make_batches())
    content = bytearray(source.path.read_bytes())
    content[offset] ^= 1
    source.path.write_bytes(content)
    assert "checksum" in refusal(source)


def test_a_truncated_archive_is_refused(publish: Publish) -> None:
    source = publish(make_batches())
    source.path.write_bytes(source.path.read_bytes()[:-1000])
    assert "checksum is not the published one" in refusal(source)
    with pytest.raises(UserError, match=r"tar\.gz: cannot be read .*; delete it and download"):
        publish(make_batches(), cut=-20_000).read(silent)  # even if its checksum had held


def test_a_changed_batch_in_a_folder_is_refused(publish: Publish) -> None:
    source = publish(make_batches(), folder=True)
    batch = source.path / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-1])
    assert f"{batch}: the checksum" in refusal(source)


def test_a_batch_is_checked_again_before_it_is_unpickled(publish: Publish) -> None:
    planted = {**make_batches(), "data_batch_2": pickle.dumps(_Planted(Path()))}
    source = publish(planted, published=make_batches())  # the archive's own checksum holds
    assert f"{source.path}!data_batch_2: the checksum" in refusal(source)


@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_batch_is_named(publish: Publish, folder: bool) -> None:
    batches = make_batches()
    del batches["test_batch"]
    assert "test_batch" in refusal(publish(batches, folder=folder))


ROW = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        (python2_batch(ROW, [1]), "1 labels do not fit 2 pictures"),
        (python2_batch(ROW, [1, 2, 3]), "3 labels do not fit 2 pictures"),
        (python2_batch(ROW, [1, 10]), "a label is not one of 0 to 9"),
        (python2_batch(ROW, [-1, 0]), "a label is not one of 0 to 9"),
        (python2_batch(ROW[:, :3000], [0, 0]), "have 3000 bytes, not 3072"),
        (python2_batch(ROW[0], [0] * 3072), "are not rows of bytes"),
        (python2_batch(ROW, [0, 0], "names"), "is not a batch of pictures"),
        (pickle.dumps({"data": [1, 2], "labels": [0, 0]}), "are not rows of bytes"),
        (pickle.dumps([1, 2]), "is not a batch of pictures"),
        (pickle.dumps({"data": 1, "labels": [0.5, "x"]}), "are not rows of bytes"),
        (python2_batch(ROW, [0, 0])[:-9], "is not a batch of pictures"),
        (b"", "is not a batch of pictures"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(publish: Publish, batch: bytes, complaint: str) -> None:
    message = refusal(publish({**make_batches(), "data_batch_2": batch}))
    assert complaint in message
    assert "data_batch_2" in message


class _Planted:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_planted_code_does_not_run(publish: Publish, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    planted = pickle.dumps({"data": _Planted(flag), "labels": [0]})
    assert "which no batch needs" in refusal(publish({**make_batches(), "test_batch": planted}))
    assert not flag.exists()
    pickle.loads(planted)  # noqa: S301 - the trap itself is live
    assert flag.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "fromfile"),
        ("a.planted.module", "ndarray"),
    ],
)
def test_other_names_are_refused(module: str, name: str) -> None:
    unpickler = cifar._BatchUnpickler(io.BytesIO(f"c{module}\n{name}\n.".encode()))
    with pytest.raises(pickle.UnpicklingError, match=re.escape(f"{module}.{name}")):
        unpickler.load()


def _entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "extra",
    [
        _entry(f"{FOLDER}/link", tarfile.SYMTYPE, "/etc/passwd"),
        _entry(f"{FOLDER}/link", tarfile.LNKTYPE, f"{FOLDER}/test_batch"),
        _entry(f"{FOLDER}/pipe", tarfile.FIFOTYPE),
        _entry(f"{FOLDER}/../../up", tarfile.REGTYPE),
        _entry("/absolute", tarfile.REGTYPE),
    ],
    ids=lambda info: info.name,
)
def test_unsafe_members_are_refused(publish: Publish, extra: tarfile.TarInfo) -> None:
    assert extra.name in refusal(publish(make_batches(), extra))


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_what_is_published_is_torchvision_s(dataset: str) -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    known = {"cifar10": CIFAR10, "cifar100": CIFAR100}[dataset]
    assert cifar.NAMES[dataset] == (known.filename, known.base_folder)
    about = cifar.published(dataset)
    assert (about.url, about.md5) == (known.url, known.tgz_md5)
    assert list(about.digests.items()) == [tuple(i) for i in known.train_list + known.test_list]


def test_classes() -> None:
    assert [len(cifar.CLASSES[name]) for name in ("cifar10", "cifar100")] == [10, 100]
    for names in cifar.CLASSES.values():
        assert list(names) == sorted(set(names))
