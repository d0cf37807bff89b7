"""The journal is the truth about a run: whole lines, written once, and shown as they stand."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fasttrain.errors import UserError
from fasttrain.observe.journal import Journal, Record, read, rewrite, speed, until


def cut_back(path: Path, step: int) -> None:
    """As a run that goes on does it."""
    rewrite(path, until(path, step))


def train(step: int) -> Record:
    figures = {"loss": 1 / (step + 2), "accuracy": 0.5, "images_per_second": 9.5, "data_stall": 0.0}
    return {"kind": "train", "step": step, "epoch": 1, "steps": 1, **figures, "seconds": 2.5}


def evaluation(step: int, split: str = "validation") -> Record:
    place = {"kind": "evaluation", "step": step, "epoch": 1, "split": split}
    return {**place, "loss": 0.1, "accuracy": 0.5, "count": 10}


class Listener:
    """A sink that remembers what it was shown, and what the file held at that moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shown: list[Record] = []
        self.on_disk: list[list[Record]] = []
        self.closed = 0

    def show(self, record: Record) -> None:
        self.shown.append(record)
        self.on_disk.append(read(self.path))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(path: Path, *records: Record) -> None:
    journal = Journal(path)
    for record in records:
        journal.write(record)
    journal.close()


def test_every_record_is_one_line_of_json(path: Path) -> None:
    write(path, train(1), evaluation(2))
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [train(1), evaluation(2)]


def test_numbers_come_back_exactly(path: Path) -> None:
    write(path, train(1))
    assert read(path) == [train(1)]


def test_a_journal_is_continued_and_not_overwritten(path: Path) -> None:
    write(path, train(1))
    write(path, train(2))
    assert read(path) == [train(1), train(2)]


def test_the_sinks_see_what_was_written_after_it_was_written(path: Path) -> None:
    listeners = [Listener(path), Listener(path)]
    journal = Journal(path, listeners)
    journal.write(train(1))
    journal.write(evaluation(1))
    for listener in listeners:
        assert listener.shown == [train(1), evaluation(1)] == read(path)
        assert listener.on_disk == [[train(1)], [train(1), evaluation(1)]]


def test_the_sinks_are_closed_with_the_journal(path: Path) -> None:
    listener = Listener(path)
    journal = Journal(path, [listener])
    assert listener.closed == 0
    journal.close()
    assert listener.closed == 1


def test_a_rank_that_only_takes_part_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None)
    journal.write(train(1))
    journal.close()
    assert list(tmp_path.iterdir()) == []


KILLED = """
import json, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from fasttrain.observe.journal import Journal

journal = Journal(Path(sys.argv[1]))
journal.write(json.loads(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_written_survives_a_kill(path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), json.dumps(train(1))])
    assert killed.returncode == -signal.SIGKILL
    assert read(path) == [train(1)]


# Back to a checkpoint


def test_cutting_back_drops_what_came_later(path: Path) -> None:
    write(path, train(1), train(2), evaluation(2), train(3), evaluation(4))
    cut_back(path, 2)
    assert read(path) == [train(1), train(2), evaluation(2)]


def test_cutting_back_to_the_start_drops_everything(path: Path) -> None:
    write(path, train(1), train(2))
    cut_back(path, 0)
    assert path.read_text() == ""


def test_cutting_back_to_the_end_keeps_everything(path: Path) -> None:
    write(path, train(1), train(2))
    before = path.read_text()
    cut_back(path, 2)
    assert path.read_text() == before


@pytest.mark.parametrize("torn", ['{"kind": "train", "step": 3, "lo', "{", "\n"])
def test_a_line_torn_by_a_crash_is_dropped_and_the_next_starts_anew(path: Path, torn: str) -> None:
    write(path, train(1), train(2))
    with path.open("a") as file:
        file.write(torn)
    assert read(path) == [train(1), train(2)]
    cut_back(path, 2)
    write(path, train(3))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        train(1),
        train(2),
        train(3),
    ]


@pytest.mark.parametrize("line", ["null", "7", "[]", "{}", '{"kind": "train"}', "[" * 9999])
def test_a_line_that_is_no_record_is_left_out(path: Path, line: str) -> None:
    write(path, train(1))
    with path.open("a") as file:
        file.write(line + "\n")
    assert read(path) == [train(1)]


@pytest.mark.parametrize("record", [train(2), evaluation(2)], ids=["train", "evaluation"])
@pytest.mark.parametrize("value", [None, "1.0", [1.0]])
def test_a_record_without_its_figures_is_left_out(path: Path, record: Record, value: Any) -> None:
    write(path, train(1), {**record, "accuracy": value}, {**record, "kind": value})
    assert read(path) == [train(1)]


def test_a_journal_that_cannot_be_read_is_one_line(path: Path) -> None:
    path.mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read: Is a directory"):
        read(path)


def test_where_there_is_no_journal_there_are_no_records(path: Path) -> None:
    assert read(path) == []
    cut_back(path, 5)
    assert read(path) == []


def test_cutting_back_leaves_the_old_journal_until_the_new_one_is_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, train(1), train(2))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="no space left"):
        cut_back(path, 1)
    assert read(path) == [train(1), train(2)]


# No room


def test_a_journal_that_cannot_be_opened_is_one_line() -> None:
    with pytest.raises(UserError, match=r"cannot write /.*: .*"):
        Journal(Path("/proc/fasttrain/metrics.jsonl"))


def test_what_finds_no_room_is_told_once_and_kept_and_shown() -> None:
    told: list[str] = []
    shown = Sinks()
    log = Journal(Path("/dev/full"), [shown], told.append)
    log.write(train(1))
    log.write(train(2))
    log.close()
    (line,) = told
    assert line.startswith("warning: cannot write /dev/full: No space left on device; training")
    assert shown.records == [train(1), train(2)]
    assert log.records == 2


def test_a_disk_that_takes_a_part_of_a_line_gets_the_rest_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Journal(path)
    whole, room = log._file.write, [7, 0]

    def write(content: bytes) -> int:
        if not room:
            return whole(content)
        left = room.pop(0)
        if not left:
            raise OSError(28, "No space left on device")
        return whole(content[:left])

    monkeypatch.setattr(log, "_file", SimpleNamespace(write=write, fileno=log._file.fileno))
    log.write(train(1))
    assert path.stat().st_size == 7
    log.write(train(2))
    assert read(path) == [train(1), train(2)]


class Sinks:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def show(self, record: Record) -> None:
        self.records.append(record)

    def hurry(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_cutting_back_drops_the_test_score_that_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = Journal(path)
    log.write(evaluation(4))
    log.write(evaluation(4, "test"))
    log.close()
    cut_back(path, 4)
    assert [record["split"] for record in read(path)] == ["validation"]


def test_how_fast_it_went_is_judged_by_time_and_not_by_steps() -> None:
    fast = {"steps": 50, "images_per_second": 1000.0, "data_stall": 0.0}
    slow = {"steps": 50, "images_per_second": 100.0, "data_stall": 0.9}
    cold = {"steps": 1, "images_per_second": 0.0, "data_stall": 0.0}  # its time is not known
    assert speed([fast, slow, cold]) == pytest.approx((100 / 0.55, 0.45 / 0.55))
    assert speed([fast, {**fast, "steps": 7}]) == pytest.approx((1000, 0))
    skipping = {**slow, "steps": 10, "skipped": 40}  # the rate counts them
    assert speed([fast, skipping]) == pytest.approx((100 / 0.55, 0.45 / 0.55))
    assert speed([cold]) == speed([]) == (0, 0)
