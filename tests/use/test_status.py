"""A run's status is read off its folder, however it ended and wherever it runs."""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from filelock import FileLock

from fasttrain.cli import main
from fasttrain.config import Config
from fasttrain.observe.folder import RunFolder
from fasttrain.use.status import Status, status

CONFIG = Config.model_validate(
    {"data": {"batch_size": 100}, "train": {"epochs": 4, "watchdog": "10min"}}
)
ELSEWHERE = "another-machine"
Make = Callable[..., RunFolder]


def train(step: int, epoch: int) -> dict[str, Any]:
    figures = {"loss": 1.0, "accuracy": 0.5, "images_per_second": 200.0, "data_stall": 0.25}
    return {"kind": "train", "step": step, "epoch": epoch, "steps": 5, **figures, "seconds": 2.5}


RECORDS = [
    train(5, 1), train(10, 1),
    {"kind": "evaluation", "split": "validation", "step": 10, "epoch": 1, "accuracy": 0.625,
     "count": 8},
    train(15, 2),
]  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a run of 40 steps that is in its second epoch."""

    def make(
        name: str = "run",
        outcome: str = "running",
        silent: float | None = 0.0,
        host: str = ELSEWHERE,
        message: str = "",
    ) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.begin(CONFIG, RECORDS)
        folder.lock.touch()
        saved = folder.checkpoints / "step-00000012" / "state.pt"
        saved.parent.mkdir(parents=True)
        saved.touch()
        if outcome != "running":
            folder.conclude(outcome, 1, message)  # type: ignore[arg-type]
        if silent is not None:
            alive = {"time": time.time() - silent, "step": 17, "steps": 40, "restarts": 2}
            folder.write_heartbeat({**alive, "host": host, "pid": 321})
            os.utime(folder.outcome, (alive["time"], alive["time"]))  # it stood before
        return folder

    return make


def again(folder: RunFolder) -> str:
    words = ("fasttrain", "train", folder.config, "--run-dir", folder.path, "--resume")
    return shlex.join(map(str, words))


def test_a_run_of_another_machine_is_known_by_its_heartbeat(make: Make) -> None:
    found = status(make().path)
    assert found.state == "running"
    assert (found.step, found.steps, found.epoch, found.epochs) == (17, 40, 2, 4)
    assert found.seconds_left == pytest.approx((40 - 17) * 100 / 200)
    assert (found.images_per_second, found.data_stall) == (200, 0.25)
    assert (found.validation_accuracy, found.test_accuracy) == (0.625, None)
    assert found.checkpoint_step == 12
    assert found.checkpoint_age == pytest.approx(0, abs=60)
    assert (found.restarts, found.host, found.pid) == (2, ELSEWHERE, 321)
    assert found.next.startswith("nothing")


@pytest.mark.parametrize(
    ("silent", "state"), [(290, "running"), (310, "stalled"), (590, "stalled"), (660, "crashed")]
)
def test_silence_counts_by_the_watchdog(silent: float, state: str, make: Make) -> None:
    folder = make(silent=silent)
    found = status(folder.path)
    assert found.state == state
    assert found.silent == pytest.approx(silent, abs=8)
    assert found.next.endswith(again(folder)) == (state != "running")


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(make: Make) -> None:
    folder = make(host=platform.node())
    with FileLock(folder.lock):
        assert status(folder.path).state == "running"
    found = status(folder.path)
    assert (found.state, found.next) == ("crashed", again(folder))


def test_a_process_that_holds_the_run_is_there_however_silent(make: Make) -> None:
    folder = make(silent=3600)
    with FileLock(folder.lock):
        assert status(folder.path).state == "stalled"


def test_where_it_hung_is_named(make: Make) -> None:
    folder = make(outcome="failed", message="lost contact")
    folder.stacks(0).write_text("Timeout!")
    folder.stacks(1).touch()
    found = status(folder.path)
    assert (found.state, found.message) == ("crashed", "lost contact")
    assert "stacks-rank0.txt say" in found.next
    assert "rank1" not in found.next


@pytest.mark.parametrize(
    ("outcome", "mend"),
    [
        ("stopped", "--resume"),
        ("refused", "mend what the message names"),
        ("diverged", "a lower rate"),
    ],
)
def test_what_a_run_says_of_itself_holds(outcome: str, mend: str, make: Make) -> None:
    found = status(make(outcome=outcome, silent=99, message="so it is").path)
    assert (found.state, found.outcome, found.message) == (outcome, outcome, "so it is")
    assert mend in found.next
    assert (found.step, found.seconds_left) == (15, None)  # what was done after it is lost


@pytest.mark.parametrize("outcome", ["stopped", "diverged", "refused", "failed"])
def test_a_run_that_goes_on_and_has_no_heartbeat_yet_runs(outcome: str, make: Make) -> None:
    folder = make(outcome=outcome, silent=99_999, message="so it was")
    folder.conclude("running", None)  # the first that it does
    with FileLock(folder.lock):
        found = status(folder.path)
    assert (found.state, found.outcome, found.message) == ("running", "running", "")
    assert found.silent == pytest.approx(0, abs=60)
    assert found.next.startswith("nothing")


def test_a_run_that_ends_says_how_while_it_still_holds_its_folder(make: Make) -> None:
    """Those that follow its journal may take a minute over their end."""
    folder = make(outcome="diverged", message="so it is")
    with FileLock(folder.lock):
        found = status(folder.path)
    assert (found.state, found.message) == ("diverged", "so it is")


def test_a_complete_run_is_complete_whoever_holds_it(make: Make) -> None:
    folder = make()
    folder.finish({"steps": 40, "test_accuracy": 0.75})
    with FileLock(folder.lock):
        assert status(folder.path).state == "complete"


def test_a_complete_run_shows_its_result(make: Make) -> None:
    folder = make()
    folder.finish({"steps": 40, "test_accuracy": 0.75})
    found = status(folder.path)
    assert (found.state, found.test_accuracy, found.steps) == ("complete", 0.75, 40)
    assert found.next == f"fasttrain evaluate {folder.path}"


@pytest.mark.parametrize(("age", "state"), [(0, "running"), (400, "stalled"), (700, "crashed")])
def test_an_old_run_without_a_heartbeat_is_known_by_its_journal(
    age: float, state: str, make: Make
) -> None:
    folder = make(silent=None)
    for file in (folder.journal, folder.outcome):
        os.utime(file, times=(time.time() - age,) * 2)
    found = status(folder.path)
    assert (found.state, found.step, found.steps) == (state, 15, 40)
    assert (found.restarts, found.host) == (None, None)


def test_one_from_before_outcomes_were_written_is_known_by_its_result(make: Make) -> None:
    folder = make(silent=None)
    folder.result.write_text(json.dumps({"steps": 40, "test_accuracy": 0.75}))
    folder.outcome.unlink()
    assert status(folder.path).state == "complete"


def test_looking_changes_nothing(make: Make) -> None:
    folder = make()
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    status(folder.path)
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def command(*words: str | Path) -> Any:
    return CliRunner().invoke(main, ["status", *map(str, words)], catch_exceptions=False)


def test_people_are_shown_all_of_it(make: Make) -> None:
    shown = command(make().path)
    assert shown.exit_code == 0
    for part in (
        "running on another-machine (pid 321)", "step 17 of 40, epoch 2 of 4", "12 s",
        "200 images/s", "62.50%", "of step 12, ", "restarts", "\nnext: nothing; later",
    ):  # fmt: skip
        assert part in shown.stdout


def test_a_crashed_run_is_not_said_to_run(make: Make) -> None:
    shown = command(make(silent=99_999).path).stdout
    assert "crashed" in shown
    assert "running" not in shown


def test_programs_get_every_figure(make: Make) -> None:
    found = json.loads(command(make().path, "--json").stdout)
    assert set(found) == set(Status.__annotations__)
    assert (found["state"], found["step"], found["outcome"]) == ("running", 17, "running")


def test_several_runs_get_a_line_each_and_one_that_is_not_there_is_named(
    make: Make, tmp_path: Path
) -> None:
    first, second = make("one"), make("two", outcome="stopped")
    shown = command(first.path, tmp_path / "nope", second.path)
    assert shown.exit_code == 2
    lines = shown.stdout.splitlines()
    assert [line.split(", ")[0].split(": ") for line in lines] == [
        [str(first.path), "running on another-machine (pid 321)"], [str(second.path), "stopped"]
    ]  # fmt: skip
    assert shown.stderr.startswith(f"fasttrain: {tmp_path / 'nope'}: there is no run here")
    assert shown.stderr.count("\n") == 1


def test_a_folder_of_runs_stands_for_all_of_them(make: Make, tmp_path: Path) -> None:
    first, second, third = (make(f"runs/{name}", outcome="stopped") for name in "cab")
    (tmp_path / "runs" / "notes").mkdir()
    for age, folder in enumerate((third, second, first)):
        os.utime(folder.config, times=(time.time() - age,) * 2)
    shown = command(tmp_path / "runs")
    assert shown.exit_code == 0
    lines = [line.split(", ")[:2] for line in shown.stdout.splitlines()]
    assert lines == [
        [f"{folder.path}: stopped", "step 15 of 40"] for folder in (first, second, third)
    ]
    assert "validation 62.50%" in shown.stdout
    assert len(command(tmp_path / "runs", "--json").stdout.splitlines()) == 3


def test_a_folder_of_no_runs_is_named(tmp_path: Path) -> None:
    shown = command(tmp_path)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.startswith(f"fasttrain: {tmp_path}: there is no run here")
