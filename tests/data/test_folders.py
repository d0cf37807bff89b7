"""Pictures by class, in a folder and in zips."""

from __future__ import annotations

import errno
import functools
import io
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fasttrain.data import folders, members
from fasttrain.data.members import Member
from fasttrain.data.store import silent
from fasttrain.data.tree import Division
from fasttrain.errors import UserError


def picture(seed: int, size: tuple[int, int] = (8, 6), suffix: str = ".png") -> bytes:
    """A picture of random pixels; `size` is its height and width."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), suffix)


def encode(image: Image.Image, suffix: str = ".png") -> bytes:
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[suffix])
    return file.getvalue()


GOOD: Mapping[str, bytes] = {
    "train/cat/b.png": picture(0),
    "train/cat/a.png": picture(1),
    "train/dog/10.png": picture(2),
    "train/dog/9.png": picture(3),
    "train/ant/x.PNG": picture(4),
    "test/dog/1.png": picture(5),
    "test/cat/1.bmp": picture(6, suffix=".bmp"),
}
IN_ORDER = [4, 1, 0, 2, 3], [6, 5]  # their seeds: by split, class and name


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(content)
    return root


def write_zip(path: Path, files: Mapping[str, bytes], lead: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(lead + name, content)
    return path


def write(form: str, root: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write the same files in one of the forms that are accepted."""
    match form:
        case "folder":
            return [write_folder(root / "set", files)]
        case "zip":
            return [write_zip(root / "set.zip", files)]
        case "zip with leading folders":
            return [write_zip(root / "set.zip", files, lead="some/where/")]
    halves = []
    for split in ("train", "test"):
        half = {name: content for name, content in files.items() if name.startswith(split)}
        halves.append(write_zip(root / f"{split}.zip", half, lead="set/"))
    return halves


FORMS = ["folder", "zip", "zip with leading folders", "a zip for each split"]


def refusal(places: list[Path]) -> str:
    with pytest.raises(UserError) as caught:
        folders.find(places).read(silent)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_arrays(form: str, tmp_path: Path) -> None:
    classes, splits = folders.find(write(form, tmp_path, GOOD)).read(silent)
    assert classes == ("ant", "cat", "dog")
    assert splits["train"].labels.tolist() == [0, 1, 1, 2, 2]
    assert splits["test"].labels.tolist() == [1, 2]
    for split, seeds in zip(("train", "test"), IN_ORDER, strict=True):
        wanted = [np.asarray(Image.open(io.BytesIO(picture(seed)))) for seed in seeds]
        assert np.array_equal(splits[split].images, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_picture_is_left_out(form: str, tmp_path: Path) -> None:
    junk = {
        "train/cat/.hidden.png": b"",
        "train/.cache/a.png": b"",
        "train/__MACOSX/cat/a.png": b"",
        "train/cat/notes.txt": b"",
        "train/read.me": b"",
    }
    source = folders.find(write(form, tmp_path, {**GOOD, **junk}))
    assert len(source.read(silent)[1]["train"].images) == 5


def kinds() -> dict[str, tuple[bytes, list[int]]]:
    """Pictures of 6 x 8 pixels in one colour, of many kinds, and the colour that is seen."""
    deep, turned = Image.new("I;16", (6, 8), 32768), Image.Exif()
    turned[0x0112] = 6
    palette = Image.new("P", (6, 8))
    palette.putpalette([9, 8, 7])
    paper = io.BytesIO()
    Image.new("RGB", (8, 6), (1, 2, 3)).save(paper, "PNG", exif=turned)
    return {
        "grey.png": (encode(Image.new("L", (6, 8), 7)), [7, 7, 7]),
        "bits.png": (encode(Image.new("1", (6, 8), 1)), [255, 255, 255]),
        "palette.png": (encode(palette), [9, 8, 7]),
        "clear.png": (encode(Image.new("RGBA", (6, 8), (1, 2, 3, 0))), [255, 255, 255]),
        "half.png": (encode(Image.new("RGBA", (6, 8), (0, 0, 0, 51))), [204, 204, 204]),
        "deep.png": (encode(deep), [128, 128, 128]),
        "cmyk.tiff": (encode(Image.new("CMYK", (6, 8), (255, 255, 0, 0)), ".tiff"), [0, 0, 255]),
        "turned.png": (paper.getvalue(), [1, 2, 3]),
    }


@pytest.mark.parametrize("form", FORMS)
def test_pictures_of_every_kind_become_rgb_of_one_size(form: str, tmp_path: Path) -> None:
    files = {f"train/zoo/{name}": content for name, (content, _) in kinds().items()}
    places = write(form, tmp_path, {**GOOD, **files, "test/zoo/1.png": picture(7)})
    train = folders.find(places).read(silent)[1]["train"]
    seen = [colour for _, (_, colour) in sorted(kinds().items())]
    assert train.images[5:, 3, 3].tolist() == seen
    assert train.images[5:].std(axis=(1, 2)).max() == 0


def test_pictures_of_any_size_are_brought_to_one(tmp_path: Path) -> None:
    slope = np.linspace(0, 255, 90, dtype=np.uint8)[:, None, None].repeat(200, 1).repeat(3, 2)
    files = {**GOOD, "train/cat/large.jpg": encode(Image.fromarray(slope), ".jpg")}
    files["test/ant/tiny.png"] = picture(11, (2, 1))
    place = write_zip(tmp_path / "a.zip", files)
    for target in ((16, 16), (9, 30)):
        source = folders.find([place], target=target)
        splits = source.read(silent)[1]
        assert splits["train"].images.shape == (6, *target, 3)
        assert splits["test"].images.shape == (3, *target, 3)
        rows = splits["train"].images[3].mean(axis=(1, 2))  # large.jpg
        centres = (np.arange(target[0]) + 0.5) * 255 / target[0]
        assert abs(rows - centres).max() < 6
    keys = {folders.find([place], target=target).key() for target in (None, (16, 16), (9, 30))}
    assert len(keys) == 3


def test_the_pixels_do_not_depend_on_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{split}/{i % 3}/{i}.png": picture(i, (5 + i % 7, 9)) for split in ("train", "test")
             for i in range(200)}  # fmt: skip
    places = [write_zip(tmp_path / "a.zip", files)]
    found = []
    for threads in (1, 5):
        pool = functools.partial(ThreadPoolExecutor, threads)
        monkeypatch.setattr(folders, "ThreadPoolExecutor", pool)
        found.append(folders.find(places, target=(8, 8)).read(silent)[1]["train"].images)
    assert np.array_equal(*found)


def test_few_files_are_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{split}/{i % 2}/{i}.png": picture(0) for split in ("train", "test")
             for i in range(400)}  # fmt: skip
    read = []
    contents = folders.contents

    def counted(members: Sequence[Member]) -> Iterator[tuple[Member, bytes]]:
        for member, content in contents(members):
            read.append(member)
            yield member, content

    monkeypatch.setattr(folders, "contents", counted)
    ahead = []
    source = folders.find([write_zip(tmp_path / "a.zip", files)])
    monkeypatch.setattr(folders, "_REPORT_EVERY", 1)
    source.read(lambda _what, done, _total: ahead.append(len(read) - done))
    assert len(read) == 800
    assert 1 < max(ahead) <= 64
    assert ahead[0] == 1  # by its size it is known how much memory all take


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_no_picture_can_be_is_not_read(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = write(form, tmp_path, {**GOOD, "train/cat/b.png": bytes(100_000)})
    monkeypatch.setattr(members, "MOST_BYTES", 90_000)
    assert "train/cat/b.png: has more than 90,000 bytes; no picture does" in refusal(places)


def test_a_pipe_in_a_folder_is_no_picture(tmp_path: Path) -> None:
    place = write_folder(tmp_path, GOOD)
    os.mkfifo(place / "train/cat/pipe.png")
    assert len(folders.find([place]).read(silent)[1]["train"].images) == 5


@pytest.mark.parametrize("threads", [1, 7])
def test_of_several_bad_pictures_the_first_is_named(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = functools.partial(ThreadPoolExecutor, threads)
    monkeypatch.setattr(folders, "ThreadPoolExecutor", pool)
    place = write_folder(tmp_path, {**GOOD, "train/cat/b.png": b"none", "train/dog/10.png": b""})
    source = folders.find([place])
    (place / "train/dog/9.png").unlink()
    for name, complaint in (
        ("cat/b.png", "not a picture"),
        ("dog/10.png", "the file is empty"),
        ("dog/9.png", "cannot be read"),
    ):
        with pytest.raises(UserError, match=f"train/{name}: {complaint}"):
            source.read(silent)
        write_folder(place, {f"train/{name}": picture(0)})
    source.read(silent)


def test_more_than_fits_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(available=1000)
    monkeypatch.setattr(folders.psutil, "virtual_memory", lambda: free)
    message = refusal([write_folder(tmp_path, GOOD)])
    assert message.startswith("7 pictures of 6x8 pixels need 0.0 GiB of memory")
    assert message.endswith("choose a smaller data.size")


def test_progress_is_told_often_and_to_the_end(tmp_path: Path) -> None:
    files = {**GOOD, **{f"train/ant/{i}.png": GOOD["train/cat/a.png"] for i in range(1200)}}
    reports: list[tuple[int, int]] = []
    source = folders.find([write_zip(tmp_path / "a.zip", files)])
    source.read(lambda _what, done, total: reports.append((done, total)))
    done = [report[0] for report in reports]
    assert done[0] == 0
    assert done[-1] == 1207
    assert all(0 < later - earlier <= 500 for earlier, later in pairwise(done))
    assert {report[1] for report in reports} == {1207}


@pytest.mark.parametrize("form", FORMS)
def test_the_key_follows_the_content(form: str, tmp_path: Path) -> None:
    places = write(form, tmp_path, GOOD)
    before = folders.find(places).key()
    assert folders.find(places).key() == before
    write(form, tmp_path, {**GOOD, "train/cat/a.png": picture(9)})
    assert folders.find(places).key() != before
    write(form, tmp_path, {**GOOD, "train/cat/c.png": picture(9)})
    assert folders.find(places).key() != before


def test_a_copied_zip_has_the_same_key_and_a_copied_folder_another(tmp_path: Path) -> None:
    zips = [write_zip(tmp_path / name, GOOD) for name in ("a.zip", "b.zip")]
    assert folders.find(zips[:1]).key() == folders.find(zips[1:]).key()
    copies = [shutil.copytree(write_folder(tmp_path / "a", GOOD), tmp_path / "b"), tmp_path / "a"]
    assert folders.find(copies[:1]).key() != folders.find(copies[1:]).key()


def test_a_later_time_of_change_changes_a_folder_s_key(tmp_path: Path) -> None:
    places = write("folder", tmp_path, GOOD)
    before = folders.find(places).key()
    os.utime(places[0] / "test/dog/1.png", ns=(1, 1))
    assert folders.find(places).key() != before


def _without(start: str) -> dict[str, bytes]:
    return {name: content for name, content in GOOD.items() if not name.startswith(start)}


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (_without("test/"), "no test pictures"),
        (_without("train/"), "no train pictures"),
        ({"readme.png": picture(0)}, "no train pictures"),
        ({**GOOD, "train/empty/": b""}, "no picture in train/empty"),
        ({**GOOD, "train/texts/a.txt": b""}, "no picture in train/texts"),
        ({**GOOD, "test/bird/a.png": picture(0)}, "class 'bird' has test pictures but no train"),
        ({**GOOD, "train/cat/deep/a.png": picture(0)}, "cat/deep/a.png: does not lie at"),
        ({**GOOD, "train/a.png": picture(0)}, "train/a.png: does not lie at"),
        (
            {**GOOD, "test/cat/1.bmp": picture(0, (6, 8))},
            "test/cat/1.bmp: 8x6 pixels, but this set's pictures have 6x8",
        ),
        ({**GOOD, "train/cat/b.png": picture(0)[:-30]}, "train/cat/b.png: damaged or cut short"),
        ({**GOOD, "train/cat/b.png": b""}, "train/cat/b.png: the file is empty"),
        (
            {**GOOD, "train/ant/x.PNG": encode(Image.new("P", (6, 8)), ".ico")},
            "x.PNG: not a picture",
        ),
        (
            {**GOOD, "train/cat/a.png": encode(Image.new("F", (6, 8), 300), ".tiff")},
            "train/cat/a.png: pixels of the kind 'F'",
        ),
        (
            {"train/cat/a.png": picture(0), "test/cat/a.png": picture(0)},
            "'cat' is the only class; two or more are needed",
        ),
        (
            {"cat/a.png": picture(0), "dog/a.png": picture(0)},
            "neither train nor test at <split>/<class>/<picture>; set data.test_share=0.2",
        ),
    ],
)
def test_a_set_that_cannot_be_used_is_explained(
    form: str, files: Mapping[str, bytes], complaint: str, tmp_path: Path
) -> None:
    places = write(form, tmp_path, files)
    message = refusal(places)
    assert complaint in message
    assert str(places[0]) in message
    assert form == "folder" or ".zip!" in message or "set.zip:" in message


def test_a_changed_byte_in_a_picture_is_noticed(tmp_path: Path) -> None:
    content = bytearray(GOOD["train/cat/a.png"])
    content[len(content) // 2] ^= 1
    files = {**GOOD, "train/cat/a.png": bytes(content)}
    assert "cat/a.png" in refusal([write_folder(tmp_path, files)])


def test_expected_classes_and_size(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", _without("train/ant"))
    assert folders.find([place], ("cat", "dog"), (8, 6)).read(silent)[0] == ("cat", "dog")
    with pytest.raises(UserError, match=r"a\.zip: class 'cow' is missing in train"):
        folders.find([place], ("cat", "cow", "dog"))
    with pytest.raises(UserError, match=r"a\.zip: class 'cat' is not one of this data set"):
        folders.find([place], ("dog",))
    with pytest.raises(UserError, match=r"no test pictures at .* add them$"):  # not to be divided
        folders.find([write_zip(tmp_path / "b.zip", {"train/cat/1.png": picture(0)})], ("cat",))
    with pytest.raises(UserError, match=r"a\.png: 6x8 pixels, but this set's pictures have 32x32"):
        folders.find([place], size=(32, 32)).read(silent)


def test_a_class_may_lack_test_pictures_unless_the_classes_are_known(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", GOOD)
    assert folders.find([place]).classes == ("ant", "cat", "dog")
    with pytest.raises(UserError, match="class 'ant' is missing in test"):
        folders.find([place], ("ant", "cat", "dog"))


def test_two_sets_are_never_merged(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "a.zip", GOOD)
    other = write_zip(tmp_path / "b.zip", {"train/cat/z.png": picture(8)})
    message = refusal([whole, other])
    assert f"{whole}!/train and {other}!/train both hold train pictures" in message


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "train/../../x.png", "..\\b.png"])
def test_names_that_point_out_of_a_zip_are_refused(name: str, tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", {**GOOD, name: picture(0)})
    assert f"a.zip!{name}: points out of the zip" in refusal([place])


@pytest.mark.parametrize("split", [0.2, None])
def test_a_zip_with_backslashes_is_explained(split: float | None, tmp_path: Path) -> None:
    files = {name.replace("/", "\\"): content for name, content in GOOD.items()}
    place = write_zip(tmp_path / "a.zip", files)
    division = Division(split, 0) if split else None
    with pytest.raises(UserError) as caught:
        folders.find([place], division=division)
    message = str(caught.value)
    assert ": has backslashes where folders are divided by /; zip it again with" in message
    assert "points out" not in message


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("train/cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(write_zip(tmp_path / "a.zip", GOOD), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "a.zip!train/cat/link.png: is a symbolic link" in refusal([tmp_path / "a.zip"])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_stand_twice_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_zip(tmp_path / "a.zip", GOOD), "a") as archive:
        archive.writestr("train/cat/a.png", picture(9))
    assert "a.zip!train/cat/a.png: stands twice" in refusal([tmp_path / "a.zip"])


@pytest.mark.parametrize("keep", [0, 10, -5, -300])
def test_a_truncated_zip_is_refused(keep: int, tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", GOOD)
    place.write_bytes(place.read_bytes()[:keep])
    assert f"{place}: cannot be read as a zip file" in refusal([place])


def test_a_changed_byte_in_a_zip_is_noticed(tmp_path: Path) -> None:
    place = write_zip(tmp_path / "a.zip", GOOD)
    content = bytearray(place.read_bytes())
    content[60] ^= 1  # in the first member
    place.write_bytes(content)
    assert "a.zip!train/cat/b.png: cannot be read" in refusal([place])


def test_links_in_a_folder_are_followed(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "set", _without("train/ant"))
    write_folder(tmp_path / "elsewhere", {"x.png": picture(4)})
    (place / "train/ant").symlink_to(tmp_path / "elsewhere")
    assert folders.find([place]).read(silent)[0] == ("ant", "cat", "dog")


def test_a_class_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, scandir = write_folder(tmp_path, GOOD), os.scandir

    def refuse_cat(path: str) -> object:
        if str(path).endswith("train/cat"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_cat)  # root, who may run this, may read all
    assert "train/cat: cannot be read: Permission denied" in refusal([place])


def test_what_is_hidden_is_not_even_looked_at(tmp_path: Path) -> None:
    place = write_folder(tmp_path, GOOD)
    classes = folders.find([place]).read(silent)[0]
    (place / "train/cat/.#1.png").symlink_to(place / "nowhere")  # as an editor locks a file
    (place / "train/.trash").mkdir()
    (place / "train/.trash/x.png").symlink_to(place / "nowhere")
    assert folders.find([place]).read(silent)[0] == classes


def test_a_link_to_nowhere_in_a_folder_is_named(tmp_path: Path) -> None:
    place = write_folder(tmp_path, GOOD)
    (place / "train/cat/gone.png").symlink_to(place / "nowhere")
    assert "train/cat/gone.png: cannot be read" in refusal([place])
