"""What can go wrong around a run, and what it does then."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from fasttrain.cli import main
from fasttrain.config import SGD, Config
from fasttrain.data import sources
from fasttrain.data.loader import Pictures
from fasttrain.data.shapes import ShapesSource
from fasttrain.errors import DivergedError, FasttrainError, StoppedError, UserError
from fasttrain.observe import choosing, journal
from fasttrain.observe.folder import RunFolder
from fasttrain.training import checkpoint
from fasttrain.training.loop import Training
from fasttrain.training.run import run
from fasttrain.training.step import TrainingStep

ROOM = 3 << 20  # bytes of the small disk


@pytest.fixture(autouse=True)
def _few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ShapesSource", lambda: ShapesSource(train=120, test=30))


def recipe(validation: int = 20, **train: Any) -> Config:
    """6 steps an epoch, 18 in all; a log every 2 and a checkpoint every 3."""
    quick = {"epochs": 3, "device": "cpu", "precision": "fp32", "compile": False}
    return Config.model_validate(
        {
            "data": {"dataset": "shapes", "batch_size": 16, "validation": validation},
            "model": {"widths": [64, 64]},
            "train": {**quick, "log_every": "2steps", **train},
            "checkpoint": {"every": "3steps", "keep": 1},
        }
    )


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], object]) -> None:
    """Do something just before a step, counted from 0."""
    whole = TrainingStep.__call__

    def step(self: TrainingStep, at: int, batch: Pictures, factor: float) -> None:
        if at == number:
            action()
        whole(self, at, batch, factor)

    monkeypatch.setattr(TrainingStep, "__call__", step)


def train(config: Config, folder: Path, **options: Any) -> str:
    """Train; return what was said."""
    said = StringIO()
    run(config, folder, console=Console(file=said, width=400), **options)
    return said.getvalue()


def interrupt(
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    folder: Path,
    config: Config | None = None,
    **options: Any,
) -> None:
    """Train until just before a step, counted from 0."""

    def end() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_step(patch, number, end)
        with pytest.raises(KeyboardInterrupt):
            train(config or recipe(), folder, **options)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Leave not a byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def test_a_full_disk_is_told_and_waited_out(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_disk / "run"
    at_step(monkeypatch, 7, lambda: fill(small_disk))
    at_step(monkeypatch, 16, lambda: (small_disk / "ballast").unlink())
    said = train(recipe(), folder)
    assert said.count("no checkpoint was written") == 3  # of steps 9, 12 and 15
    assert "no space left" in said
    assert checkpoint.newest(folder / "checkpoints")[0] == folder / "checkpoints/step-00000018"
    steps = [one["step"] for one in journal.read(folder / "metrics.jsonl") if "lr" in one]
    assert steps == list(range(2, 19, 2))
    assert json.loads((folder / "outcome.json").read_text())["outcome"] == "complete"


def test_a_disk_that_stays_full_keeps_the_last_good_checkpoint(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_disk / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda: fill(small_disk))
        with pytest.raises(UserError, match="no space left"):
            train(recipe(), folder)  # its result cannot be written
    assert checkpoint.newest(folder / "checkpoints") == (folder / "checkpoints/step-00000006", [])
    (small_disk / "ballast").unlink()
    assert "goes on at step 6;" in train(recipe(), folder, resume=True)


def test_a_full_disk_does_not_hide_that_training_diverged(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe().model_copy(update={"optim": SGD(lr=1e30)})
    at_step(monkeypatch, 0, lambda: fill(small_disk))
    with pytest.raises(DivergedError, match=r"of step \d .*pictures "):
        train(config, small_disk / "run")


def test_a_read_only_folder_is_refused_in_one_line(small_disk: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(recipe().to_yaml())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    words = ["train", str(config), "--run-dir", str(small_disk / "run")]
    ended = CliRunner().invoke(main, words)
    assert ended.exit_code == 2
    assert "read-only" in ended.output
    assert len(ended.output.splitlines()) == 1


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe(), tmp_path / "calm")
    for step, hours in ((4, 100), (9, -1000)):
        now = time.time() + 3600 * hours
        at_step(monkeypatch, step, lambda now=now: monkeypatch.setattr(time, "time", lambda: now))
    train(recipe(), tmp_path / "jumps")
    last = "checkpoints/step-00000018/model.safetensors"
    assert (tmp_path / "calm" / last).read_bytes() == (tmp_path / "jumps" / last).read_bytes()
    for record in journal.read(tmp_path / "jumps" / "metrics.jsonl"):
        assert record.get("seconds", 0) >= 0
        assert record.get("images_per_second", 1) >= 0


def test_a_second_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals: list[str] = []

    def second() -> None:
        child = os.fork()
        if child == 0:
            try:
                with RunFolder(tmp_path / "run").alone():
                    os._exit(0)
            except UserError as error:
                (tmp_path / "refusal").write_text(str(error))
                os._exit(2)
        refusals.append(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))

    at_step(monkeypatch, 4, second)
    train(recipe(), tmp_path / "run")
    assert refusals == ["2"]
    message = (tmp_path / "refusal").read_text()
    assert "another process works on this run" in message
    with RunFolder(tmp_path / "run").alone():
        pass  # nobody does any more


def test_other_settings_are_refused_with_the_difference_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, 10, tmp_path / "run")
    with pytest.raises(UserError, match=r"train\.label_smoothing=0\.1 \(it was 0\.0\)"):
        train(recipe(label_smoothing=0.1), tmp_path / "run", resume=True)
    changed = recipe(label_smoothing=0.1)
    assert "goes on at step 9;" in train(changed, tmp_path / "run", resume=True, changed=True)


def test_fewer_epochs_than_are_done_are_refused_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, 10, tmp_path / "run")
    with pytest.raises(UserError, match=r"ends after 6 steps, and .*run has gone 9; choose more"):
        train(recipe(epochs=1), tmp_path / "run", resume=True, changed=True)
    assert "goes on at step 9;" in train(recipe(), tmp_path / "run", resume=True)


def test_how_it_is_executed_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, 10, tmp_path / "run")
    changed = recipe(cuda_graphs=False, watchdog="5min")
    assert "goes on at step 9;" in train(changed, tmp_path / "run", resume=True)


def test_a_run_that_is_complete_takes_no_other_settings(tmp_path: Path) -> None:
    train(recipe(), tmp_path / "run")
    assert "nothing is left to do" in train(recipe(), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match=r"train\.epochs=4"):
        train(recipe(epochs=4), tmp_path / "run", resume=True, changed=True)


def test_a_rank_that_is_told_to_end_while_it_starts_still_says_why_it_cannot_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # by the launcher: another rank has just refused
        raise UserError("the ranks cannot share this")

    monkeypatch.setattr(choosing, "choose", refuse)
    with pytest.raises(UserError, match="cannot share"):
        run(recipe(), tmp_path / "run")


def test_without_a_validation_split_a_run_goes_on_from_the_end_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(validation=0).model_dump()
    config = Config.model_validate({**settings, "checkpoint": {"every": "1epochs"}})
    interrupt(monkeypatch, 9, tmp_path / "run", config)
    assert "goes on at step 7;" in train(config, tmp_path / "run", resume=True)


def test_a_missing_journal_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, 10, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match="records"):
        train(recipe(), tmp_path / "run", resume=True)
    assert "goes on at step 9;" in train(recipe(), tmp_path / "run", resume=True, changed=True)


def test_checkpoints_that_cannot_be_read_for_a_moment_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    interrupt(monkeypatch, 10, tmp_path / "run")
    kept = [tmp_path / "run" / "metrics.jsonl", *tmp_path.glob("run/checkpoints/*/*")]
    before = [path.read_bytes() for path in kept]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "sha256", fail)
        refusal = r"run/checkpoints: none of 2 can be used \(.*-00000009: .*output error.*; mend"
        with pytest.raises(FasttrainError, match=refusal) as caught:
            train(recipe(), tmp_path / "run", resume=True)
    assert caught.value.exit_code == 1, "a scheduler's script starts it again"
    assert [path.read_bytes() for path in kept] == before
    assert "goes on at step 9;" in train(recipe(), tmp_path / "run", resume=True)


def test_a_run_that_was_stopped_in_an_evaluation_and_then_killed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation is made again, behind the checkpoint; the journal has one record more."""
    train(recipe(), tmp_path / "whole")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_abandon_if_asked", stop_at(12))
        with pytest.raises(StoppedError, match="step 12 of 18"):
            train(recipe(), tmp_path / "run")
    interrupt(monkeypatch, 13, tmp_path / "run", resume=True)
    rated = checkpoint.best(tmp_path / "run" / "checkpoints")
    assert rated is not None
    assert rated.name == "step-00000012"
    train(recipe(), tmp_path / "run", resume=True)
    keys = ("kind", "step", "split", "loss", "batches")
    ends = [
        [[one.get(key) for key in keys] for one in journal.read(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "run")
    ]
    assert ends[0] == ends[1]


def stop_at(step: int) -> Callable[[Training, int], None]:
    """What a signal between two batches of the evaluation after `step` does."""
    whole = Training._abandon_if_asked

    def abandon(self: Training, done: int) -> None:
        if done == step:
            self.stop.signal = "SIGTERM"
        whole(self, done)

    return abandon
