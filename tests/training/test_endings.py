"""How runs end, and what they leave to those that follow, in this process or another."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rich.console import Console

from fasttrain import compiler, peers
from fasttrain.answers import Answers
from fasttrain.config import Checkpoint, Config, Data, Train
from fasttrain.data import sources
from fasttrain.data.shapes import ShapesSource
from fasttrain.data.store import Store
from fasttrain.errors import StoppedError, UserError
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.journal import Journal
from fasttrain.runtime import Runtime
from fasttrain.training import checkpoint
from fasttrain.training.checkpoint import Snapshot
from fasttrain.training.clock import Clock, Phase
from fasttrain.training.run import run
from fasttrain.training.step import TrainingStep
from fasttrain.use.evaluate import evaluate

QUIET = Console(quiet=True)
LAST = 12  # steps of a run


@pytest.fixture(autouse=True)
def _few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ShapesSource", lambda: ShapesSource(train=116, test=30))


def recipe(batch_size: int = 16, **train: Any) -> Config:
    quick = {"epochs": 2, "device": "cpu", "precision": "fp32", "compile": False}
    data = {"dataset": "shapes", "batch_size": batch_size, "validation": 20, "loader": "resident"}
    return Config.model_validate(
        {
            "data": data,
            "model": {"widths": [4, 6]},
            "train": {**quick, **train},
            "checkpoint": {"every": "6steps"},
            "track": {"report": False},
        }
    )


def test_a_run_that_is_told_to_stop_while_data_is_prepared_stops_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(_: Data, progress: Callable[[str, int, int], None]) -> Store:
        os.kill(os.getpid(), signal.SIGTERM)
        for done in range(600):
            progress("decoding pictures", done, 600)
            time.sleep(0.1)
        raise AssertionError("it went on for a minute")

    monkeypatch.setattr(sources, "open_dataset", prepare)
    with pytest.raises(StoppedError, match=r"SIGTERM stopped .* while its data was prepared"):
        run(recipe(), tmp_path / "run", console=QUIET)


def test_a_run_without_its_last_checkpoint_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def full(root: Path, snapshot: Snapshot, *rest: Any) -> Path:
        if snapshot.step == LAST:
            raise UserError("the disk is full")
        return save(root, snapshot, *rest)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        with pytest.raises(UserError, match=r"was not written \(the disk is full\).*--resume"):
            run(recipe(), folder, console=QUIET)
    assert RunFolder(folder).finished() is None
    run(recipe(), folder, resume=True, console=QUIET)
    assert RunFolder(folder).finished() is not None
    assert checkpoint.newest(folder / "checkpoints")[0] == folder / f"checkpoints/step-{LAST:08d}"


def test_a_gpu_that_is_full_is_the_users_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no crash, which a scheduler would try again and again."""

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(TrainingStep, "__call__", full)
    with pytest.raises(
        UserError, match=r"smaller data\.batch_size than 16, or train\.accumulate=N"
    ):
        run(recipe(), tmp_path / "run", console=QUIET)
    assert '"refused"' in (tmp_path / "run/outcome.json").read_text()


def test_a_viewer_that_goes_away_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    gone = os.fdopen(writes, "w")
    monkeypatch.setattr(sys, "stderr", gone)
    run(recipe(), tmp_path / "run")
    with suppress(BrokenPipeError):  # what it still holds has no way to go
        gone.close()
    assert RunFolder(tmp_path / "run").finished() is not None


def test_no_minutes_between_checkpoints_are_one_at_the_end(tmp_path: Path) -> None:
    config = recipe().model_copy(update={"checkpoint": Checkpoint(every="0min", keep=9)})
    run(config, tmp_path / "run", console=QUIET)
    kept = [path.name for path in (tmp_path / "run/checkpoints").glob("step-*")]
    assert kept == [f"step-{LAST:08d}"]


def test_an_old_checkpoint_that_resists_costs_no_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network's file system keeps a folder while somebody reads in it."""

    def resist(*_path: Any, **_more: Any) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    weights = {"weight": torch.zeros(2)}
    checkpoint.save(tmp_path, Snapshot(1, weights, None, {}), keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", resist)
        written = checkpoint.save(tmp_path, Snapshot(2, weights, None, {}), keep=1)
    assert written == tmp_path / "step-00000002"
    checkpoint.save(tmp_path, Snapshot(3, weights, None, {}), keep=1)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "step-00000003"]


def test_what_follows_the_journal_is_not_taken_for_a_run_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, watching = Journal.close, []

    def slow(self: Journal) -> None:
        time.sleep(0.2)  # for the thread to end
        watching.append(any(thread.name == "watchdog" for thread in threading.enumerate()))
        close(self)

    monkeypatch.setattr(Journal, "close", slow)
    run(recipe(watchdog="0.5min"), tmp_path / "run", console=QUIET)
    assert watching == [False]


@pytest.fixture
def _tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and kept, as with the compiler, which would take minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.mark.usefixtures("_tracing")
def test_many_unlike_runs_in_one_process_are_all_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch keeps eight graphs of a function, and refuses, or compiles no more, beyond."""
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    for size in range(10, 28, 2):
        config = recipe(size, epochs=1, compile=True)
        run(config, tmp_path / str(size), console=QUIET)


def test_only_training_asks_for_processes_and_a_device(tmp_path: Path) -> None:
    folder, result = run(recipe(), tmp_path / "run", console=QUIET)
    wanted = recipe(processes=2)
    (folder.path / "config.yaml").write_text(recipe(processes=2, device="cuda").to_yaml())
    assert evaluate(folder.path)["accuracy"] == result["test_accuracy"]
    (folder.path / "config.yaml").write_text(wanted.to_yaml())
    assert run(wanted, folder.path, resume=True, console=QUIET)[1] == folder.finished()
    with pytest.raises(UserError, match=r"2 processes were asked for by train\.processes, but 1"):
        run(wanted, tmp_path / "other", console=QUIET)


def test_a_refusal_leaves_nothing_to_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "missing_for_compile", lambda: "a C++ compiler (g++)")
        with pytest.raises(UserError, match="a C"):
            Runtime(Train(device="cpu", compile=True, precision="fp32"))
    Runtime(Train(device="cpu", compile=False, precision="bf16")).close()


def test_a_rank_leaves_although_the_others_do_not_come(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL waits for sums that were begun; why one rank ended would be told half an hour later."""
    others_came = threading.Event()
    monkeypatch.setattr(peers, "_PARTING", 0.1)
    monkeypatch.setattr(runtime._accelerator, "end_training", others_came.wait)
    runtime.world = 2
    closing = threading.Thread(target=runtime.close, daemon=True)
    closing.start()
    closing.join(5)
    left = not closing.is_alive()
    others_came.set()
    closing.join()
    assert left


def test_a_broken_connection_does_not_hide_what_a_rank_ended_of(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        raise dist.DistBackendError("NCCL error: unhandled system error")

    monkeypatch.setattr(runtime._accelerator, "end_training", end)
    runtime.world = 2
    runtime.close()


def test_an_evaluation_is_timed_without_what_is_then_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Speedruns stop their clocks there, and a disk may be slow."""
    events: list[str] = []
    lap, write = Clock.lap, RunFolder.write_answers

    def noted_lap(clock: Clock, phase: Phase) -> None:
        events.append(phase)
        lap(clock, phase)

    def noted_write(folder: RunFolder, split: str, answers: Answers) -> None:
        events.append("answers")
        write(folder, split, answers)

    monkeypatch.setattr(Clock, "lap", noted_lap)
    monkeypatch.setattr(RunFolder, "write_answers", noted_write)
    run(recipe(), tmp_path / "run", console=QUIET)
    places = [place for place, event in enumerate(events) if event == "answers"]
    assert len(places) >= 2
    assert {(events[place - 1], events[place + 1]) for place in places} == {
        ("evaluate", "checkpoint")
    }
