"""Processes that follow a run end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

from fasttrain.observe.following import Follower

WAITS = """
from pathlib import Path
from fasttrain.observe.following import has_ended
while not has_ended(60):
    pass
Path("ended").touch()
"""


def follower(tmp_path: Path, patience: float) -> Follower:
    (tmp_path / "waits.py").write_text(f"import os\nos.chdir({str(tmp_path)!r})\n{WAITS}")
    return Follower("waits", [], patience, {"PYTHONPATH": str(tmp_path)})


def test_a_follower_ends_when_it_is_told(tmp_path: Path) -> None:
    follower(tmp_path, 60).close()
    assert (tmp_path / "ended").exists()


def test_it_does_so_while_helpers_of_the_trainer_hold_its_input_open(tmp_path: Path) -> None:
    """A loader's workers, forked after the follower was started, inherit the pipe."""
    followed = follower(tmp_path, 60)
    helper = multiprocessing.get_context("fork").Process(target=signal.pause)
    helper.start()
    try:
        followed.close()
    finally:
        helper.kill()
        helper.join()
    assert (tmp_path / "ended").exists()


def test_one_that_has_died_is_no_matter(tmp_path: Path) -> None:
    followed = follower(tmp_path, 60)
    os.kill(followed._process.pid, signal.SIGKILL)
    followed._process.wait()
    followed.close()
