"""A folder of one's own pictures: prepared by its name, trained on by any recipe, told apart."""

from __future__ import annotations

import json
import random
import shlex
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw, ImageFont

from fasttrain.cli import main
from fasttrain.cli.data import DATASETS
from fasttrain.config import Config, DatasetName, load, override
from fasttrain.data.sources import open_dataset
from fasttrain.errors import UserError
from tests.data.test_folders import encode, picture, write_folder, write_zip

LETTERS = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
EACH = 24  # pictures of a letter


def letter(name: str, dice: random.Random) -> bytes:
    """28 x 28 grey pixels, a little off the centre."""
    paper = Image.new("L", (28, 28))
    place = 14 + dice.randint(-2, 2), 14 + dice.randint(-2, 2)
    font = ImageFont.load_default(20)
    ImageDraw.Draw(paper).text(place, name, dice.randint(150, 255), font, anchor="mm")
    return encode(paper)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-six classes without training and test folders."""
    dice = random.Random(0)  # noqa: S311
    files = {f"{name}/{i:03d}.png": letter(name, dice) for name in LETTERS for i in range(EACH)}
    return write_folder(tmp_path_factory.mktemp("home") / "my letters", files)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a cache of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FASTTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "here"


def fasttrain(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def succeed(*words: object) -> str:
    ended = fasttrain(*words)
    assert ended.exit_code == 0, f"{ended.output}\n{ended.exception!r}"
    return ended.stdout


def refusal(*words: object) -> str:
    """The one line with which a command ends, and which leaves nothing behind."""
    ended = fasttrain(*words)
    assert ended.exit_code == 2, f"{ended.output}\n{ended.exception!r}"
    assert ended.stderr.startswith("fasttrain: ")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert list(Path().iterdir()) == []
    assert [path for path in Path("../cache/stores").glob("*") if path.is_dir()] == []
    return ended.stderr


FAST = [
    "train.device=cpu", "train.precision=fp32", "train.compile=false", "model.widths=[16,32]",
    "data.batch_size=32", "optim.lr=0.05", "optim.momentum=0.9",
]  # fmt: skip


def test_letters_are_prepared_and_learnt_by_a_recipe(letters: Path, configs: Path) -> None:
    told = succeed("data", "prepare", "folder", "--path", letters, "--size", 32)
    for part in (
        f"26: {', '.join(LETTERS)}",
        "494 training, 130 test, 32 x 32 pixels",
        "19 training, 5 test",
        "28 x 28 (624); brought to 32 x 32",
        "grey (624); brought to colour of 8 bits",
    ):
        assert part in told
    command = told.strip().splitlines()[-1]
    words = shlex.split(command.partition("fasttrain train CONFIG ")[2])
    recipe = [configs / "demo.yaml", *words, *FAST]
    run = Path("run")
    succeed("train", *recipe, "train.epochs=12", "model.norm=batch", "--run-dir", run)
    result = json.loads((run / "result.json").read_text())
    assert result["test_count"] == 130
    assert result["test_accuracy"] > 0.5  # by chance 0.04
    for shown in (succeed("data", "info", *recipe), succeed("data", "info", run / "config.yaml")):
        assert f"26: {', '.join(LETTERS)}" in shown
    assert json.loads(succeed("evaluate", run, "--json"))["accuracy"] == result["test_accuracy"]
    succeed("data", "preview", *recipe, "--epochs", 2, "--pictures", 2)
    assert Path("preview.png").exists()


@pytest.mark.parametrize("recipe", ["baseline", "demo", "intermediate", "advanced"])
@pytest.mark.parametrize("size", [28, 32])
def test_every_recipe_fits_such_a_set(recipe: str, size: int, letters: Path, configs: Path) -> None:
    data = ["data.dataset=folder", override("data.path", letters), f"data.size={size}"]
    words = [*data, "data.test_share=0.2", "data.validation=64", "data.batch_size=128"]
    assert "26" in succeed("model", configs / f"{recipe}.yaml", *words)


def test_the_configuration_that_is_written_trains(letters: Path, here: Path) -> None:
    words = ("--test-share", 0.25, "--seed", 5, "--validation", 52, "--name", "abc")
    told = succeed(
        "data", "prepare", "folder", "--path", letters, "--size", "[28, 24]", *words, "-o", "a.yaml"
    )
    assert "next: fasttrain train a.yaml" in told
    config = load(here / "a.yaml")
    assert (config.name, config.data.size, config.data.split_seed) == ("abc", (28, 24), 5)
    assert (config.data.test_share, config.data.validation) == (0.25, 52)
    assert open_dataset(config.data).size == (28, 24)
    before = (here / "a.yaml").read_bytes()
    again = fasttrain("data", "prepare", "folder", "--path", letters, "-o", "a.yaml")
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert "a.yaml: is there already" in again.stderr
    assert (here / "a.yaml").read_bytes() == before


def test_a_seed_leaves_the_share_that_was_set(letters: Path, tmp_path: Path) -> None:
    words = ("--path", letters, "--size", 8, "--seed", 1)
    assert "494 training, 130 test" in succeed("data", "prepare", "folder", *words)
    for share in (("--test-share", 0.5), ("data.test_share=0.5",)):
        told = succeed("data", "prepare", "folder", *words, *share)
        assert "312 training, 312 test" in told
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {dataset: folder, test_share: 0.5}")
    assert succeed("data", "prepare", file, *words).rstrip() == told.splitlines()[0]


def test_a_relative_path_is_written_whole(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(letters.parent)
    told = succeed("data", "prepare", "folder", "--path", letters.name, "--size", 16)
    assert f"path: {letters}" in told
    lines = told.partition("a configuration for it:")[2].partition("with any other")[0]
    found = Config.model_validate(yaml.safe_load(lines))
    assert found.name == "my-letters"
    assert len(open_dataset(found.data).classes) == 26


def test_sizes_and_kinds_of_a_mixed_set_with_splits_are_told(tmp_path: Path) -> None:
    files = {
        "train/a/1.png": picture(0, (40, 30)),
        "train/a/2.png": encode(Image.new("RGBA", (9, 9))),
        "train/b/1.jpg": encode(Image.new("CMYK", (64, 20)), ".jpg"),
        "test/a/1.png": picture(1, (40, 30)),
        "test/b/1.png": encode(Image.new("I;16", (9, 9))),
    }
    place = write_zip(tmp_path / "set.zip", files)
    told = succeed("data", "prepare", "folder", "--path", place, "--size", 16)
    for part in (
        "1 (b) to 2 (a) training, 1 test",
        "40 x 30 (2), 9 x 9 (2), 20 x 64 (1); brought to 16 x 16",
        "colour (2), CMYK (1), colour with transparency (1), grey of 16 bits (1); brought to",
        "validation: 0",
        "batch_size: 1",
    ):
        assert part in told
    assert "test_share" not in told


def test_of_many_sizes_the_range_is_told(tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": picture(i, (9 + i, 30 - i)) for name in "ab" for i in range(12)}
    place = write_folder(tmp_path / "set", files)
    told = succeed("data", "prepare", "folder", "--path", place, "--size", 16)
    assert "12 different ones, 9 to 20 x 19 to 30; brought to 16 x 16" in told


def test_the_sets_that_fasttrain_knows_are_named_alike() -> None:
    assert get_args(DatasetName) == DATASETS


def test_a_file_comes_before_a_data_set_of_the_same_name(here: Path) -> None:
    (here / "shapes").write_text("trian: {}")
    assert "shapes: unknown key 'trian'" in fasttrain("data", "prepare", "shapes").stderr


def test_options_stand_for_settings_of_a_configuration_too(letters: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {dataset: folder}")
    words = ("--path", letters, "--size", 12, "--test-share", 0.5)
    told = succeed("data", "prepare", file, *words)
    assert told.startswith("ready: ")
    again = ("data.size=12", override("data.path", letters), "data.test_share=0.5")
    assert succeed("data", "prepare", file, *again) == told


@pytest.mark.parametrize(
    "value", ["plain", "a: b", "7", "~", "yes", "[x]", "# no", "'", '"', "é ü", "", "a\\b", "1e5"]
)
def test_any_text_survives_an_override(value: str) -> None:
    if value:
        assert load(None, [override("data.path", value)]).data.path == Path(value)
    assert load(None, [override("track.project", value or "x")]).track.project == (value or "x")
    assert override("data.size", [28, 24]) == "data.size=[28, 24]"


# What cannot be used.


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--path", "gone"], "--path=gone is not there"),
        (["--path", ""], "Invalid value for '--path': the path is empty"),
        (["data.path=gone"], "data.path=gone is not there"),
        ([], "set data.path=... to your folder or zip of pictures"),
        (["--path", "{letters}", "--size", "0"], "data.size: a size is the side of a square, or"),
        (["--path", "{letters}", "--size", "-3"], "of 8 to 512 pixels (it is -3)"),
        (["--path", "{letters}", "--size", "100000"], "of 8 to 512 pixels (it is 100000)"),
        (["--path", "{letters}", "--size", "large"], "of 8 to 512 pixels (it is 'large')"),
        (["--path", "{letters}", "--test-share", "0"], "data.test_share: input should be greater"),
        (
            ["--path", "{letters}", "--test-share", "1"],
            "the argument '--test-share=1': data.test_share: input should be less",
        ),
        (["--path", "{letters}", "--seed", "x"], "data.split_seed: input should be a valid int"),
        (["--path", "{letters}", "--name", "a b"], "argument '--name=a b': name: letters, digits"),
        (["--path", "{letters}", "-o", "../x/a.yaml"], "cannot write"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    words: list[str], complaint: str, letters: Path, here: Path
) -> None:
    (here.parent / "x").write_text("")
    words = [word.replace("{letters}", str(letters)) for word in words]
    assert complaint in refusal("data", "prepare", "folder", *words)


@pytest.mark.parametrize("size", ["--size=32", "data.size=32"])
@pytest.mark.parametrize("name", ["cifar10", "shapes"])
def test_sets_of_their_own_size_are_brought_to_no_other(size: str, name: str) -> None:
    line = refusal("data", "prepare", name, size)
    assert f"data.size: this is for dataset=folder, not for {name}; leave it out" in line
    line = refusal("data", "prepare", name, "--test-share=0.2")
    assert "data.test_share: this is for dataset=folder" in line


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "holds no such data"),
        ({"notes.txt": b""}, "holds no such data"),
        ({"a/notes.txt": b"", "b/notes.txt": b""}, "holds no such data"),
        ({"a/1.png": picture(0), "a/2.png": picture(1)}, "'a' is the only class"),
        (
            {"a/1.png": picture(0), "a/2.png": picture(1), "b/1.png": picture(2)},
            "class 'b' has one",
        ),
        (
            {f"{name}/{i}.png": picture(i) for name in "ab" for i in range(3)} | {"b/2.png": b"x"},
            "b/2.png: not a picture",
        ),
        (
            {f"{name}/{i}.png": picture(i, (8 + i, 9)) for name in "ab" for i in range(3)},
            "this set's pictures have 9x",
        ),
    ],
    ids=["empty", "no folder", "no picture", "one class", "one picture", "bad", "two sizes"],
)
def test_folders_that_cannot_be_used_are_explained(
    files: dict[str, bytes], complaint: str, tmp_path: Path
) -> None:
    place = tmp_path / "set"
    place.mkdir()
    line = refusal("data", "prepare", "folder", "--path", write_folder(place, files))
    assert complaint in line
    assert str(place) in line


@pytest.mark.parametrize("words", [("--test-share", "0.2"), ("--seed", "1")])
def test_a_set_that_is_divided_is_not_divided_again(words: tuple[str, str], tmp_path: Path) -> None:
    files = {f"{split}/{name}/1.png": picture(0) for split in ("train", "test") for name in "ab"}
    place = write_folder(tmp_path / "set", files)
    line = refusal("data", "prepare", "folder", "--path", place, *words)
    assert "so the set is divided already; leave data.test_share out" in line


def test_a_name_that_is_neither_a_file_nor_a_set_is_told_with_its_nearest() -> None:
    assert "foldr: neither a configuration file nor" in refusal("data", "prepare", "foldr")
    assert "did you mean 'folder'?" in refusal("data", "info", "foldr")
    assert "did you mean 'folder'?" in refusal("data", "prepare", "foldr", "-o", "mine.yaml")
    assert "only a DATASET's" in fasttrain("data", "prepare", "x.yaml", "-o", "y.yaml").stderr


@pytest.mark.parametrize("command", ["prepare", "info", "preview"])
def test_the_name_of_an_unknown_set_is_told_with_those_there_are(command: str) -> None:
    assert (
        "imagenet: neither a configuration file nor the name of a data set (those are cifar10, "
        "cifar100, shapes, folder)"
    ) in refusal("data", command, "imagenet")
    assert "; did you mean 'cifar10'?" in refusal("data", command, "cifar")
    assert "did you mean" not in refusal("data", command, "imagenet.yaml")


@pytest.mark.parametrize("name", ["x.txt", "x.jpg", "x", "x.png.d/"])
def test_a_preview_is_a_png_file(name: str) -> None:
    line = refusal("data", "preview", "shapes", "-o", name)
    assert line == f"fasttrain: -o {Path(name)}: a preview ends in .png; rename it\n"


def test_the_name_of_a_recipe_is_no_data_set(
    configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(configs.parent)
    ended = fasttrain("data", "info", "baseline")
    assert ended.exit_code == 2
    assert "did you mean 'configs/baseline.yaml'?" in ended.stderr


def test_a_name_too_long_for_a_file_is_one_line() -> None:
    name = "n" * 300
    assert "the name is too long" in refusal("data", "prepare", "shapes", "-o", f"{name}.yaml")
    assert "File name too long" in refusal("data", "info", name)


def test_a_seed_alone_divides_no_set_that_is_divided() -> None:
    told = refusal("data", "prepare", "cifar10", "--seed", "5", "--path", "/no")
    assert told.startswith("fasttrain: the argument '--seed=5': ")


def test_other_pictures_make_another_run(letters: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    data = {"dataset": "folder", "path": str(letters), "size": 16, "test_share": 0.2}
    file.write_text(yaml.safe_dump({"data": {**data, "validation": 0, "batch_size": 128}}))
    words = ["train", file, *FAST[:-3], "train.epochs=1", "--run-dir", tmp_path / "run"]
    succeed(*words)
    for change in ("data.size=18", "data.test_share=0.3", "data.split_seed=1"):
        (tmp_path / "run" / "result.json").unlink(missing_ok=True)
        ended = fasttrain(*words, "--resume", change)
        assert ended.exit_code == 2
        assert f"was begun with other settings: {change} (it was" in ended.stderr


def test_the_size_is_part_of_what_is_written(letters: Path) -> None:
    with pytest.raises(UserError, match="neither train nor test"):
        open_dataset(load(None, ["data.dataset=folder", override("data.path", letters)]).data)
    told = succeed("data", "prepare", "folder", "--path", letters)
    assert "28 x 28 pixels" in told
    assert "size: 28" not in told  # all have one size: it is theirs
    images = open_dataset(
        load(
            None, ["data.dataset=folder", override("data.path", letters), "data.test_share=0.2"]
        ).data
    ).train.images
    assert np.array_equal(images[..., 0], images[..., 2])
