"""A drawing that fails is not the last one, and is told."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fasttrain.config import Config
from fasttrain.errors import UserError
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.reporting import ReportSink
from fasttrain.report import follow


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has just begun."""
    folder = RunFolder(tmp_path / "a run")
    folder.begin(Config())
    return folder


@pytest.fixture
def turns(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """What becomes of each drawing of a run that ends when there are none left but one."""
    turns: list[Exception | None] = []

    def has_ended(_: float) -> bool:
        with folder.journal.open("a") as journal:
            journal.write("{}\n")
        return len(turns) == 1

    def write(*_: object, **__: object) -> None:
        error = turns.pop(0)
        if error:
            raise error

    monkeypatch.setattr(sys, "argv", ["follow", str(folder.path)])
    for name, stand_in in (("has_ended", has_ended), ("write", write)):
        monkeypatch.setattr(follow, name, stand_in)
    monkeypatch.setattr(follow, "outlive_signals", lambda: None)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    return turns


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (None, ""),
        (UserError("cannot write it: no space left"), "cannot write it: no space left"),
        (KeyError("two\nlines"), r"KeyError: 'two\nlines'"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
)
def test_one_that_fails_is_tried_again_and_the_last_reason_told(
    turns: list[Exception | None],
    capsys: pytest.CaptureFixture[str],
    last: Exception | None,
    said: str,
) -> None:
    turns += [ValueError("early"), OSError("later"), None, last]
    follow.main()
    assert turns == []
    assert capsys.readouterr().out == f"{said}\n"


def test_what_was_not_drawn_is_drawn_again_without_a_new_line(
    folder: RunFolder, turns: list[Exception | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.journal.write_text("{}\n")
    turns += [ValueError("early"), None, None]
    calls = iter([False, False, False, True])
    monkeypatch.setattr(follow, "has_ended", lambda _: next(calls))
    follow.main()
    assert turns == []  # and none was drawn twice


def test_a_journal_that_is_not_there_yet_ends_nothing(
    folder: RunFolder, turns: list[Exception | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.journal.unlink()
    turns += [None]
    calls = iter([False, True])
    monkeypatch.setattr(follow, "has_ended", lambda _: next(calls))
    follow.main()
    assert turns == []


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


def close(folder: RunFolder, told: io.StringIO, kill: bool = False) -> str:
    sink = ReportSink(folder.path, Console(file=told, width=40))
    if kill:
        os.kill(sink._process.pid, signal.SIGKILL)
    sink.close()
    return told.getvalue()


def test_a_report_that_is_whole_needs_no_word(folder: RunFolder, told: io.StringIO) -> None:
    assert close(folder, told) == ""
    assert folder.report.exists()


def test_the_run_ends_with_the_reason_in_one_line(folder: RunFolder, told: io.StringIO) -> None:
    folder.config.write_text("trian: {}")
    line = close(folder, told)
    assert line.startswith("report: not drawn to the end (")
    assert "trian" in line
    assert line.endswith(f"); to draw it later: fasttrain report '{folder.path}'\n")
    assert line.count("\n") == 1


def test_one_that_was_killed_is_told_too(folder: RunFolder, told: io.StringIO) -> None:
    assert "(its process ended with code -9)" in close(folder, told, kill=True)
