"""The garbage collector rests until a run has started, and only then."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fasttrain import garbage
from fasttrain.cli import main
from fasttrain.training.step import TrainingStep


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.enable()


def test_nothing_is_collected_until_it_goes_on() -> None:
    frozen = gc.get_freeze_count()
    with garbage.postponed():
        assert not gc.isenabled()
        garbage.go_on()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
        kept = gc.get_freeze_count()
        gc.disable()
        garbage.go_on()  # once is enough: what the run itself makes is looked at
        assert gc.get_freeze_count() <= kept
        assert not gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_run_that_never_starts_leaves_it_on() -> None:
    with pytest.raises(KeyError), garbage.postponed():
        raise KeyError
    assert gc.isenabled()


def test_who_has_turned_it_off_keeps_it_off() -> None:
    gc.disable()
    with garbage.postponed():
        garbage.go_on()
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_without_a_postponement_nothing_is_done() -> None:
    frozen = gc.get_freeze_count()
    garbage.go_on()
    assert gc.get_freeze_count() == frozen


def test_a_run_postpones_it_to_the_end_of_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    step = TrainingStep.__call__

    def watched(self: TrainingStep, *args: Any) -> None:
        seen.append(gc.isenabled())
        step(self, *args)

    monkeypatch.setattr(TrainingStep, "__call__", watched)
    (tmp_path / "tiny.yaml").write_text("name: tiny\n")
    settings = ["data.dataset=shapes", "data.validation=0", "data.batch_size=1000"]
    settings += ["train.epochs=1", "train.device=cpu", "train.compile=false", "model.widths=[4]"]
    command = ["train", str(tmp_path / "tiny.yaml"), *settings, "--run-dir", str(tmp_path / "run")]
    assert not main.main(command, standalone_mode=False)
    assert seen[0] is False
    assert all(seen[1:])
    assert len(seen) > 1
