"""A run that goes on retires checkpoints, and one that is being read is no exception."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fasttrain.data import sources
from fasttrain.data.store import Store
from fasttrain.errors import UserError
from fasttrain.steps import by_step
from fasttrain.training import checkpoint
from fasttrain.use.evaluate import evaluate
from fasttrain.use.model import open_model
from tests.use.conftest import Example

USES: list[Callable[[Path], object]] = [lambda run: open_model(run).source, evaluate]
every_use = pytest.mark.parametrize("use", USES, ids=["open_model", "evaluate"])


@pytest.fixture
def run(example: Example, tmp_path: Path) -> Path:
    """A run with one checkpoint."""
    run = example.copy(tmp_path / "run")
    for old in sorted((run / "checkpoints").iterdir())[:-1]:
        shutil.rmtree(old)
    return run


def retire(run: Path) -> Path:
    """What the next checkpoint does: it comes, and the one before goes."""
    ((step, old),) = by_step(run / "checkpoints")
    return old.rename(checkpoint.place(run / "checkpoints", step + 1))


@every_use
def test_one_that_goes_between_its_choice_and_its_reading_is_chosen_anew(
    use: Callable[[Path], object], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []
    newest = checkpoint.newest

    def choose(root: Path) -> tuple[Path | None, list[str]]:
        chosen = newest(root)
        if not found:
            found.append(retire(run))
        return chosen

    monkeypatch.setattr(checkpoint, "newest", choose)
    told = use(run)
    assert str(found[0]) in str(told)


@every_use
def test_one_that_goes_while_it_is_checked_is_chosen_anew(
    use: Callable[[Path], object], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []
    flaw = checkpoint._flaw

    def check(folder: Path) -> str | None:
        if not found:
            found.append(retire(run))
        return flaw(folder)

    monkeypatch.setattr(checkpoint, "_flaw", check)
    told = use(run)
    assert str(found[0]) in str(told)


def test_all_of_it_is_read_before_the_data_is_opened(
    example: Example, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> Store:
        shutil.rmtree(run / "checkpoints")
        return example.store

    monkeypatch.setattr(sources, "open_dataset", opened)
    assert evaluate(run)["accuracy"] == example.result["test_accuracy"]


@every_use
def test_weights_without_an_average_are_told_from_ones_that_went(
    use: Callable[[Path], object], run: Path
) -> None:
    (folder,) = (run / "checkpoints").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]["ema.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "ema.safetensors").unlink()
    with pytest.raises(UserError, match="the run did not average its weights"):
        use(run)


@every_use
@pytest.mark.parametrize("left", ["ema.safetensors", "state.pt"])
def test_what_is_taken_away_by_hand_is_told_in_one_line(
    use: Callable[[Path], object], run: Path, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = (run / "checkpoints").iterdir()
    (folder / left).unlink()
    monkeypatch.setattr(checkpoint, "_flaw", lambda _: None)  # it went only afterwards
    with pytest.raises(UserError, match="has gone") as caught:
        use(run)
    assert "\n" not in str(caught.value)
