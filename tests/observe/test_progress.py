"""What a user sees while a run goes."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console

from fasttrain.config import Config
from fasttrain.observe.journal import Record
from fasttrain.observe.progress import ProgressLine, working
from fasttrain.times import roughly

CONFIG = Config.model_validate({"train": {"epochs": 12, "compile": False}})
TRAIN: Record = {
    "kind": "train",
    "step": 300,
    "epoch": 4,
    "steps": 50,
    "loss": 1.23456,
    "accuracy": 0.54321,
    "lr": 0.1,
    "images_per_second": 12345.6,
    "data_stall": 0.0425,
    "seconds": 99.0,
}
EVALUATION: Record = {
    "kind": "evaluation",
    "step": 300,
    "epoch": 4,
    "split": "validation",
    "loss": 1.1,
    "accuracy": 0.6125,
    "count": 5000,
}


class Screen:
    """A console whose output can be read, and the time, which passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, terminal: bool, width: int = 160) -> None:
        self._file = io.StringIO()
        self.console = Console(
            file=self._file, force_terminal=terminal, width=width, color_system=None
        )
        self.now = 1000.0
        monkeypatch.setattr("fasttrain.observe.progress.time.monotonic", lambda: self.now)

    def lines(self) -> list[str]:
        """What was written since the last call, without what steers the cursor."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", self._file.getvalue())
        self._file.seek(0)
        self._file.truncate()
        return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(monkeypatch, terminal=True)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A file, or the output of a batch system."""
    return Screen(monkeypatch, terminal=False, width=80)


def test_the_live_line_shows_where_the_run_stands(terminal: Screen) -> None:
    line = ProgressLine(CONFIG, total=1200, console=terminal.console)
    line.show({**TRAIN, "step": 200})
    terminal.lines()
    terminal.now += 50
    line.show(TRAIN)
    (shown,) = terminal.lines()
    assert shown == (
        "epoch 4/12  ━━━━━┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄  25%  8 min left  loss 1.235  accuracy 54.32%  "
        "12,346 images/s  data 4.2%"
    )
    line.close()


@pytest.mark.parametrize("compiles", ["auto", False])
def test_until_the_first_figures_a_terminal_is_told_of_compiling(
    terminal: Screen, compiles: object
) -> None:
    config = Config.model_validate({"train": {"compile": compiles}})
    line = ProgressLine(config, 1200, terminal.console)
    shown = terminal.lines()
    told = ["waiting for the first figures; compiling can take minutes"]
    assert shown == (told if compiles else [])
    line.show(TRAIN)
    assert terminal.lines()[-1].startswith("epoch 4/")
    line.close()


def test_the_live_line_is_redrawn_with_every_record(terminal: Screen) -> None:
    line = ProgressLine(CONFIG, 1200, terminal.console)
    for step in (100, 200):
        line.show({**TRAIN, "step": step, "loss": step / 100})
        (shown,) = terminal.lines()
        assert f"loss {step / 100:.3f}" in shown
    line.close()


def test_the_time_left_leaves_out_compiling(terminal: Screen) -> None:
    """The first record comes behind it; what is left is then judged by the speed it tells."""
    config = Config.model_validate({"data": {"batch_size": 100}, "train": {"compile": False}})
    line = ProgressLine(config, total=340, console=terminal.console)
    terminal.now += 1000
    line.show({**TRAIN, "images_per_second": 50.0})
    assert "  80 s left  " in terminal.lines()[0]
    terminal.now += 10
    line.show({**TRAIN, "step": 320, "images_per_second": 500.0})
    assert "  10 s left  " in terminal.lines()[0]
    line.show({**TRAIN, "step": 340, "images_per_second": 0.0})
    assert "  0 s left  " in terminal.lines()[0]
    line.close()


def test_at_the_end_no_time_is_left_and_the_bar_is_full(terminal: Screen) -> None:
    line = ProgressLine(CONFIG, 300, terminal.console)
    terminal.now += 10
    line.show(TRAIN)
    (shown,) = terminal.lines()
    assert "━" * 20 + " 100%" in shown
    assert "┄" not in shown
    assert "100%  0 s left" in shown
    line.close()


@pytest.mark.parametrize("width", [80, 90, 100])
def test_in_a_narrow_terminal_the_bar_gives_way_to_the_figures(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    screen = Screen(monkeypatch, terminal=True, width=width)
    line = ProgressLine(CONFIG, 1200, screen.console)
    line.show({**TRAIN, "step": 200})
    screen.lines()
    screen.now += 50
    line.show(TRAIN)
    (shown,) = screen.lines()
    assert len(shown) <= width
    for figure in ("epoch 4/12", "loss 1.235", "accuracy 54.32%", "12,346 images/s", "data 4.2%"):
        assert figure in shown
    assert "  8 min left  " in shown
    line.close()


def test_a_terminal_too_narrow_for_all_figures_still_shows_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen(monkeypatch, terminal=True, width=60)
    line = ProgressLine(CONFIG, 1200, screen.console)
    line.show(TRAIN)
    (shown,) = screen.lines()
    assert shown.startswith("epoch 4/12  37 s left  loss 1.235")
    assert shown.endswith("…")
    line.close()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (7500, "2 h 5 min"), (273_600, "3 d 4 h")],
)
def test_a_time_is_told_in_the_units_one_thinks_in(seconds: float, told: str) -> None:
    assert roughly(seconds) == told


def test_an_evaluation_leaves_a_line_with_all_figures(log: Screen) -> None:
    line = ProgressLine(CONFIG, 1200, log.console)
    line.show(TRAIN)
    line.show(EVALUATION)
    line.close()
    assert log.lines() == [
        "epoch 4/12  loss 1.235  accuracy 54.32%  12,346 images/s  data 4.2%  "
        "validation: loss 1.100  accuracy 61.25%"
    ]


def test_an_evaluation_before_any_training_has_only_its_own_figures(log: Screen) -> None:
    line = ProgressLine(CONFIG, 1200, log.console)
    line.show(EVALUATION)
    assert log.lines() == ["validation: loss 1.100  accuracy 61.25%"]


def test_the_test_at_the_end_is_told_by_itself(log: Screen) -> None:
    line = ProgressLine(CONFIG, 1200, log.console)
    line.show(TRAIN)
    line.show({**EVALUATION, "split": "test"})
    assert log.lines() == ["test: loss 1.100  accuracy 61.25%"]


def test_a_log_holds_no_live_lines(log: Screen) -> None:
    line = ProgressLine(CONFIG, 1200, log.console)
    for step in range(100):
        line.show({**TRAIN, "step": step})
    line.close()
    assert log.lines() == []


def test_an_evaluation_stays_on_the_terminal_above_the_live_line(terminal: Screen) -> None:
    line = ProgressLine(CONFIG, 1200, terminal.console)
    line.show(TRAIN)
    terminal.lines()
    line.show(EVALUATION)
    shown = terminal.lines()
    assert shown[0].endswith("validation: loss 1.100  accuracy 61.25%")
    assert " left  loss " in shown[-1]
    line.close()


# Preparing


def test_work_on_a_terminal_shows_a_bar_for_each_thing(terminal: Screen) -> None:
    with working(terminal.console) as show:
        show("reading pictures", 0, 200)
        show("reading pictures", 50, 200)
        show("writing the store", 1, 1)
    shown = " ".join(terminal.lines())
    assert re.search(r"reading pictures\s+\S+ ?\S*\s+25%", shown)
    assert re.search(r"writing the store\s+\S+\s+100%", shown)


def test_work_leaves_nothing_in_a_log(log: Screen) -> None:
    with working(log.console) as show:
        show("reading pictures", 50, 200)
    assert log.lines() == []


def test_an_evaluation_line_has_the_means_of_all_steps_since_the_last(log: Screen) -> None:
    progress = ProgressLine(CONFIG, 900, log.console)
    progress.show({**TRAIN, "steps": 30, "loss": 1.0, "accuracy": 0.5})
    progress.show({**TRAIN, "steps": 10, "loss": 2.0, "accuracy": 0.9})
    progress.show(EVALUATION)
    progress.show({**TRAIN, "loss": 7.0})
    progress.show(EVALUATION)
    first, second = log.lines()
    assert "loss 1.250  accuracy 60.00%" in first
    assert "loss 7.000" in second
    progress.close()


def test_an_evaluation_line_tells_how_fast_all_of_it_went(log: Screen) -> None:
    progress = ProgressLine(CONFIG, 900, log.console)
    progress.show({**TRAIN, "images_per_second": 1000.0, "data_stall": 0.0})
    progress.show({**TRAIN, "images_per_second": 100.0, "data_stall": 0.9})
    progress.show(EVALUATION)
    (shown,) = log.lines()
    assert "182 images/s  data 81.8%" in shown
    progress.close()


def test_a_bar_leaves_standard_output_alone() -> None:
    """What a command prints may go to a file while the bar is on the terminal."""
    console = Console(file=io.StringIO(), force_terminal=True)
    before = sys.stdout
    with working(console) as show:
        show("predicting", 1, 2)
        assert sys.stdout is before
