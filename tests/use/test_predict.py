"""`fasttrain predict`: every picture gets its class, what is none is named, and all goes on."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from fasttrain.cli import main
from fasttrain.cli.models import _shown
from fasttrain.use import inputs
from fasttrain.use.model import open_model
from tests.use.conftest import Example


def predict(*words: object, stdin: bytes | None = None) -> Result:
    ended = CliRunner().invoke(main, ["predict", *map(str, words)], input=stdin)
    assert ended.exit_code in (0, 2), f"{ended.output}\n{ended.exception!r}"
    assert "Traceback" not in ended.output
    return ended


def rows(ended: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.stdout.splitlines()]


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def wanted(example: Example) -> torch.Tensor:
    """Probabilities of the test pictures, by the order of their names."""
    model = open_model(example.path).model
    with torch.no_grad():
        return model.probabilities(torch.from_numpy(example.store.test.images.copy()))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_folder_gets_what_the_model_says_in_order(
    example: Example, wanted: torch.Tensor, batch_size: int
) -> None:
    folder = example.pictures / "test"
    ended = predict(example.path, folder, "--json", "--batch-size", batch_size, "--threads", 3)
    found = rows(ended)
    assert [row["path"] for row in found] == sorted(map(str, folder.rglob("*.png")))
    shares, labels = wanted.topk(5)
    for row, share, label in zip(found, shares.tolist(), labels.tolist(), strict=True):
        assert row["label"] == label[0]
        assert row["class"] == example.store.classes[label[0]]
        assert [each["label"] for each in row["top"]] == label
        assert [each["confidence"] for each in row["top"]] == pytest.approx(share, abs=1e-5)
    assert ended.exit_code == 0
    assert ended.stderr.startswith("30 pictures in ")
    assert ended.stderr.endswith(" images/s\n")


def test_lines_pipe_well(example: Example, wanted: torch.Tensor) -> None:
    ended = predict(example.path, example.pictures / "test", "--top", 2)
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    shares, labels = wanted.topk(2)
    for line, share, label in zip(lines, shares.tolist(), labels.tolist(), strict=True):
        assert line[1::2] == [example.store.classes[each] for each in label]
        assert [float(part) for part in line[2::2]] == pytest.approx(share, abs=1e-4)


def test_more_classes_than_there_are_is_all_of_them(example: Example) -> None:
    ended = predict(example.path, example.pictures / "test/0", "--top", 99, "--json")
    assert all(len(row["top"]) == 10 for row in rows(ended))


def test_pictures_of_every_kind_and_size_are_taken(example: Example, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    whole = Image.fromarray(noise[..., :3])
    whole.save(tmp_path / "rgb.jpg")
    whole.convert("CMYK").save(tmp_path / "cmyk.jpeg")
    whole.convert("L").save(tmp_path / "grey.BMP")
    whole.quantize(16).save(tmp_path / "palette.gif")
    Image.fromarray(noise).save(tmp_path / "alpha.webp")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.tif")
    Image.new("RGB", (20_000, 5)).save(tmp_path / "wide.png")
    Image.new("1", (1, 1)).save(tmp_path / "dot.png")
    ended = predict(example.path, tmp_path, "--json")
    assert ended.exit_code == 0
    assert len(rows(ended)) == 8


def test_what_is_no_picture_is_named_and_the_others_are_predicted(
    example: Example, tmp_path: Path
) -> None:
    good = sorted(map(str, (example.pictures / "test/3").iterdir()))
    content = Path(good[0]).read_bytes()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "short.png").write_bytes(content[: len(content) // 2])
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    (tmp_path / "folder").mkdir()
    bad = ["text.png", "empty.png", "short.png", "bomb.png", "large.png", "folder", "missing.png"]
    bad += ["null\0.png", f"{'long' * 99}.png"]
    mixed = [name for pair in zip(good, (tmp_path / b for b in bad), strict=False) for name in pair]
    rest = [tmp_path / name for name in bad[len(good) :]]
    ended = predict(example.path, *mixed, *rest, "--json", "--batch-size", 2)
    assert [row["path"] for row in rows(ended)] == good
    lines = ended.stderr.splitlines()
    for name, line in zip(bad, lines, strict=False):
        shown = str(tmp_path / name).replace("\0", "\ufffd")
        assert line.startswith(f"refused {shown}: ")
    summary, last = lines[len(bad) :]
    assert summary.startswith(f"{len(good)} pictures in ")
    total = len(good) + len(bad)
    assert last == f"fasttrain: {len(bad)} of {total} were refused; each is named above"
    assert ended.exit_code == 2


def test_in_folders_pictures_count_and_nothing_else(example: Example, tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    for name in ("a/x.png", "b/c/y.PNG", ".hidden/z.png", "a/.z.png"):
        write(tmp_path / name, pixels)
    (tmp_path / "a/notes.txt").write_text("hello")
    (tmp_path / "b/back").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "a/pipe.png")
    ended = predict(example.path, tmp_path, "--json")
    assert [row["path"] for row in rows(ended)] == [
        str(tmp_path / "a/x.png"),
        str(tmp_path / "b/c/y.PNG"),
    ]
    assert ended.exit_code == 0


def test_a_file_is_tried_whatever_its_name(example: Example, tmp_path: Path) -> None:
    picture = write(tmp_path / "a.png", np.zeros((16, 16, 3), dtype=np.uint8))
    picture.rename(tmp_path / "picture")
    assert len(rows(predict(example.path, tmp_path / "picture", "--json"))) == 1


def test_standard_input_may_be_a_picture(example: Example, wanted: torch.Tensor) -> None:
    content = io.BytesIO()
    Image.fromarray(example.store.test.images[4]).save(content, "PNG")
    (row,) = rows(predict(example.path, "-", "--json", stdin=content.getvalue()))
    assert row["path"] == "-"
    assert row["confidence"] == pytest.approx(float(wanted[4].max()), abs=1e-5)
    assert "refused -: not a picture" in predict(example.path, "-", stdin=b"hello").stderr


def test_standard_input_without_end_is_no_picture(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MOST_BYTES", 4)
    assert "refused -: has more than 4 bytes" in predict(example.path, "-", stdin=b"hello").stderr


@pytest.mark.parametrize("words", [("--list",), ("--list", "-")])
def test_standard_input_may_list_paths(example: Example, words: tuple[str, ...]) -> None:
    names = sorted(map(str, (example.pictures / "test").rglob("*.png")))[:3]
    listed = "\r\n".join([*names, "", "missing.png"]).encode()
    ended = predict(example.path, *words, "--json", stdin=listed)
    assert [row["path"] for row in rows(ended)] == names
    assert "refused missing.png: cannot be read: No such file or directory" in ended.stderr


def test_what_is_asked_for_must_make_sense(example: Example, tmp_path: Path) -> None:
    for words, complaint in (
        ((example.path,), "no PATH"),
        ((example.path, "--list", "a.png"), "--list reads standard input"),
        ((tmp_path, "a.png"), "there is no run here"),
    ):
        ended = predict(*words)
        assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
        assert complaint in ended.stderr


def test_a_name_with_anything_in_it_keeps_to_its_line(example: Example, tmp_path: Path) -> None:
    odd = os.fsdecode(b"a\nb\tc\xff.png")
    picture = write(tmp_path / "a.png", np.zeros((16, 16, 3), dtype=np.uint8))
    picture.rename(tmp_path / odd)
    (tmp_path / "z\n.png").write_bytes(b"")
    ended = predict(example.path, tmp_path)
    assert len(ended.stdout.splitlines()) == 1
    assert len(ended.stdout.split("\t")) == 11
    assert len(ended.stderr.splitlines()) == 3
    (row,) = rows(predict(example.path, tmp_path, "--json"))
    assert row["path"] == str(tmp_path / odd)


@pytest.mark.parametrize("odd", ["\u202f", "\u00a0", "\u3000", "\u200d", "\u202e", "\ue000"])
def test_a_path_that_is_piped_names_its_file(example: Example, tmp_path: Path, odd: str) -> None:
    path = tmp_path / f"a{odd}b.png"
    shutil.copy(next(example.pictures.rglob("*.png")), path)
    ended = predict(example.path, path)
    assert Path(ended.stdout.split("\t")[0]).exists()


@pytest.mark.parametrize(
    ("text", "piped", "on_terminal"),
    [
        ("a\u00a0b\u200dc", "a\u00a0b\u200dc", "a\u00a0b\u200dc"),
        ("a\u202eb\u2066c", "a\u202eb\u2066c", "a\ufffdb\ufffdc"),
        ("a\nb\x1b[m\x85c", "a\ufffdb\ufffd[m\ufffdc", "a\ufffdb\ufffd[m\ufffdc"),
        ("a\u2028b\u2029c\udcff", "a\ufffdb\ufffdc\ufffd", "a\ufffdb\ufffdc\ufffd"),
    ],
)
def test_only_what_breaks_a_line_or_turns_it_around_is_replaced(
    text: str, piped: str, on_terminal: str
) -> None:
    assert (_shown(text, on_terminal=False), _shown(text, on_terminal=True)) == (piped, on_terminal)


def test_a_reader_that_goes_away_is_no_bug(example: Example, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text(f"{example.pictures / 'test'}\n" * 100)
    command = f"'{sys.executable}' -m fasttrain predict '{example.path}' --list < '{listed}'"
    ended = subprocess.run(
        ["bash", "-c", f"{command} | head -1"], capture_output=True, text=True, check=False
    )
    assert ended.stdout.count("\n") == 1
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr
