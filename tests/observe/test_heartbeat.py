"""The heartbeat tells how far a run is, and is old when nothing happens."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import pytest

from fasttrain.config import Config
from fasttrain.errors import UserError
from fasttrain.files import read_json
from fasttrain.observe import folder as folders
from fasttrain.observe import heartbeat as heartbeats
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.heartbeat import Heartbeat
from fasttrain.watchdog import Watchdog

CONFIG = Config.model_validate({"train": {"epochs": 4}})
TRAIN = {
    "kind": "train", "step": 20, "epoch": 2, "loss": 1.5, "accuracy": 0.25,
    "images_per_second": 900.0, "data_stall": 0.125,
}  # fmt: skip
SCORED = {"kind": "evaluation", "split": "validation", "step": 20, "epoch": 2, "accuracy": 0.375}
TESTED = {**SCORED, "split": "test", "accuracy": 0.9}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "_EVERY", 0.02)


@pytest.fixture
def watchdog(tmp_path: Path) -> Watchdog:
    return Watchdog(60, tmp_path / "stacks.txt")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def read(folder: RunFolder, **wanted: Any) -> dict[str, Any]:
    """The heartbeat, once it says so."""
    end = time.monotonic() + 30
    while True:
        found = read_json(folder.heartbeat)
        if found and all(found[name] == value for name, value in wanted.items()):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.01)


def save(folder: RunFolder, step: int, age: float) -> None:
    written = folder.checkpoints / f"step-{step:08d}" / "state.pt"
    written.parent.mkdir(parents=True)
    written.touch()
    os.utime(written, times=(time.time() - age,) * 2)


def test_it_holds_the_figures_of_the_journal_and_the_step_of_the_loop(
    folder: RunFolder, watchdog: Watchdog
) -> None:
    save(folder, 15, age=30)
    save(folder, 5, age=90)
    heartbeat = Heartbeat(folder, CONFIG, watchdog)
    heartbeat.begin(0, 40, [])
    before = read(folder, step=0)
    assert (before["loss"], before["validation_accuracy"], before["epoch"]) == (None, None, 1)
    for record in (TRAIN, SCORED, TESTED):
        heartbeat.show(record)
    watchdog.alive(23)
    found = read(folder, step=23)
    heartbeat.close()
    assert found["time"] == pytest.approx(time.time(), abs=20)
    assert found["checkpoint_age"] == pytest.approx(30, abs=20)
    assert found["checkpoint_time"] == pytest.approx(found["time"] - found["checkpoint_age"])
    expected = {
        "steps": 40, "epoch": 3, "epochs": 4, "loss": 1.5, "accuracy": 0.25,
        "images_per_second": 900.0, "data_stall": 0.125, "validation_accuracy": 0.375,
        "checkpoint_step": 15, "restarts": 0, "pid": os.getpid(), "host": platform.node(),
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_it_is_not_written_again_while_nothing_happens(
    folder: RunFolder, watchdog: Watchdog
) -> None:
    heartbeat = Heartbeat(folder, CONFIG, watchdog)
    heartbeat.begin(0, 40, [])
    read(folder, step=0)
    written = folder.heartbeat.stat().st_mtime_ns
    time.sleep(0.1)
    assert folder.heartbeat.stat().st_mtime_ns == written
    watchdog.alive(1)
    read(folder, step=1)
    heartbeat.close()


def test_each_time_a_run_goes_on_is_counted(folder: RunFolder, tmp_path: Path) -> None:
    for restarts in range(3):
        watchdog = Watchdog(None, tmp_path / "stacks.txt")
        heartbeat = Heartbeat(folder, CONFIG, watchdog)
        heartbeat.begin(20 * bool(restarts), 40, [TRAIN, SCORED] if restarts else [])
        heartbeat.close()
        found = read(folder)
        assert found["restarts"] == restarts
        assert found["loss"] == (1.5 if restarts else None)  # of the journal that it goes on with


def test_a_run_that_was_begun_without_one_has_gone_on_once(
    folder: RunFolder, watchdog: Watchdog
) -> None:
    heartbeat = Heartbeat(folder, CONFIG, watchdog)
    heartbeat.begin(20, 40, [])
    heartbeat.close()
    assert read(folder)["restarts"] == 1


def test_the_last_one_is_written_at_the_end_with_the_last_checkpoint(
    folder: RunFolder, watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "_EVERY", 3600)
    heartbeat = Heartbeat(folder, CONFIG, watchdog)
    heartbeat.begin(0, 40, [])
    read(folder, step=0)
    watchdog.alive(40)
    save(folder, 40, age=0)
    heartbeat.close()
    assert (read(folder)["step"], read(folder)["checkpoint_step"]) == (40, 40)


def test_a_full_disk_is_waited_out(
    folder: RunFolder, watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, full = folders.write_text, [True]

    def write(path: Path, content: str) -> None:
        if full:
            raise UserError(f"cannot write {path}: no space left on the device")
        whole(path, content)

    monkeypatch.setattr(folders, "write_text", write)
    heartbeat = Heartbeat(folder, CONFIG, watchdog)
    heartbeat.begin(7, 40, [])
    time.sleep(0.1)
    assert read_json(folder.heartbeat) is None
    full.clear()
    assert read(folder, step=7)["steps"] == 40
    heartbeat.close()


def test_what_a_killed_process_left_aside_is_swept_away(
    folder: RunFolder, watchdog: Watchdog
) -> None:
    left = folder.path / ".heartbeat.json.abc.part"
    left.touch()
    heartbeat = Heartbeat(folder, CONFIG, watchdog)
    heartbeat.begin(0, 40, [])
    heartbeat.close()
    assert not left.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"step": '])
def test_one_that_cannot_be_read_is_none(content: str, folder: RunFolder) -> None:
    folder.heartbeat.write_text(content)
    assert read_json(folder.heartbeat) is None
    json.dumps(read_json(folder.heartbeat))


@pytest.mark.parametrize(
    ("seconds", "idle", "stalled"), [(60, 29, False), (60, 31, True), (None, 9999, False)]
)
def test_a_run_is_stalled_after_half_the_time_of_the_watchdog(
    seconds: float | None, idle: float, stalled: bool, folder: RunFolder
) -> None:
    watchdog = Watchdog(seconds, folder.path / "stacks.txt")
    heartbeat = Heartbeat(folder, CONFIG, watchdog)
    watchdog.alive_at -= idle
    assert not heartbeat.is_stalled  # it has not begun: data is being prepared
    heartbeat._total = 40
    assert heartbeat.is_stalled == stalled
