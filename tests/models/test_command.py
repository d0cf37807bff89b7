"""`fasttrain model`, and what a run says of a network before it touches a device."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from fasttrain.cli import main
from fasttrain.config import load
from fasttrain.data import sources
from fasttrain.training.run import run as train

CONFIG = """
data: {dataset: cifar10, batch_size: 100}
model:
  family: attention_cnn
  stages: [{width: 8}, {width: 16}]
train: {epochs: 20}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(CONFIG)
    return path


def run(*arguments: str | Path, columns: int = 120) -> Result:
    environment = {"COLUMNS": str(columns)}
    return CliRunner(env=environment).invoke(main, ["model", *map(str, arguments)])


def test_it_shows_layers_and_the_cost_of_the_run_without_the_data_set(config: Path) -> None:
    result = run(config)
    assert result.exit_code == 0
    multiply_adds = 9 * 3 * 24 * 1024 + 9 + 9 * 8 * 48 * 256 + 24 + 160
    assert "blocks.1.branches.0.convolution" in result.output
    assert "48 x 16 x 16" in result.output
    assert f"{9 * 8 * 48 * 256:,}" in result.output
    assert f"({multiply_adds:,} x 900,000 pictures of 32 x 32)" in _flat(result.output)
    assert f"= {6 * multiply_adds * 45_000 * 20 / 1e15:.3g} PFLOP" in result.output


def test_on_a_narrow_screen_names_are_broken_and_nothing_is_cut_off(config: Path) -> None:
    assert "…" not in run(config, columns=65).output


def test_pictures_that_fill_no_batch_are_not_counted(config: Path) -> None:
    found = run(config, "data.batch_size=400", "train.epochs=1").output
    assert "44,800 pictures" in _flat(found)


def test_smaller_pictures_cost_less(config: Path) -> None:
    found = run(config, "train.epochs=4", "train.resize=[{scale: 0.5, until: 25%}]").output
    layer, head = 9 * 3 * 24 + 9 * 8 * 48 // 4, 9 + 24 + 160
    small, large = layer * 256 + head, layer * 1024 + head
    assert f"({small:,} x 45,000 pictures of 16 x 16 + {large:,} x 135,000" in _flat(found)
    assert f"= {6 * (small * 45_000 + large * 135_000) / 1e15:.3g} PFLOP" in _flat(found)


def _flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("dataset", ["cifar100", "shapes"])
def test_other_data_sets_are_known_by_their_names(config: Path, dataset: str) -> None:
    result = run(config, f"data.dataset={dataset}")
    pictures, classes = ("900,000", 100) if dataset == "cifar100" else ("100,000", 10)
    assert f"{pictures} pictures" in _flat(result.output)
    assert f"{17 * classes:,}" in result.output


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.stages=[{width: 8}, {width: 8}, {width: 8}, {width: 8}, {width: 8}, {width: 8}]",
         "model: halving the sides 6 times leaves no pixels of pictures of 32 x 32"),
        ("train.resize=[{scale: 0.1, until: 1steps}]",
         "train.resize: scale=0.1 is too small: model: halving the sides"),
        ("model.branches=0", "model.branches: "),
        ("data.validation=50000", "data.validation=50000 leaves nothing"),
        ("data.dataset=folder", "set data.path"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_one_line_and_exit_code_2(
    config: Path, override: str, words: str
) -> None:
    result = run(config, override)
    assert result.exit_code == 2
    assert words in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_run_is_refused_before_anything_is_built(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Opened:
        size = (1, 32)

    monkeypatch.setattr(sources, "open_dataset", lambda *_: Opened())
    result = CliRunner().invoke(main, ["train", str(config), "--run-dir", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "leaves no pixels of pictures of 1 x 32; 0 times is the most" in result.output
    assert not (tmp_path / "run").exists()


def test_an_attention_network_trains_and_odd_settings_are_said(
    config: Path, tmp_path: Path
) -> None:
    changes = ["train.epochs=1", "data.dataset=shapes", "data.validation=0", "data.batch_size=2500"]
    settings = load(config, [*changes, "train.compile=false", "train.device=cpu"])
    console = Console(file=StringIO(), width=200)
    _, result = train(settings, tmp_path / "run", console=console)
    assert result["steps"] == 4
    assert isinstance(console.file, StringIO)
    assert "warning: model.gate.anneal=10epochs is longer than the run" in console.file.getvalue()
