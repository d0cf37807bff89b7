"""What a user puts beside the checkpoints is no checkpoint, and stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from fasttrain.observe.folder import RunFolder
from fasttrain.training import checkpoint

OTHERS = ("step-00000012.bak", "step-00000006-mine", "step-3", "step-", "old-step-00000003")


def save(root: Path, step: int) -> Path:
    snapshot = checkpoint.Snapshot(step, checkpoint.weights_of(nn.Linear(1, 1)), None, {})
    return checkpoint.save(root, snapshot, keep=1)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with a checkpoint, copies of it, and notes."""
    folder = RunFolder(tmp_path)
    save(folder.checkpoints, 6)
    for name in OTHERS:
        (folder.checkpoints / name).mkdir()
        (folder.checkpoints / name / "state.pt").touch()
    (folder.checkpoints / "step-notes.txt").touch()
    return folder


def test_only_what_has_the_name_of_a_checkpoint_is_one(folder: RunFolder) -> None:
    first = folder.checkpoints / "step-00000006"
    assert folder.newest_checkpoint() == (6, (first / "state.pt").stat().st_mtime)
    assert checkpoint.newest(folder.checkpoints) == (first, [])


def test_the_next_checkpoint_takes_away_its_own_only(folder: RunFolder) -> None:
    save(folder.checkpoints, 9)
    left = sorted(path.name for path in folder.checkpoints.iterdir())
    assert left == sorted([*OTHERS, "step-notes.txt", "step-00000009"])


def test_they_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (99_999_999, 100_000_000):
        place = checkpoint.place(folder.checkpoints, step)
        place.mkdir(parents=True)
        (place / "state.pt").touch()
    assert (folder.newest_checkpoint() or (0, 0))[0] == 100_000_000


def test_one_that_is_not_whole_or_no_folder_hides_none(folder: RunFolder) -> None:
    (folder.checkpoints / "step-00000012").mkdir()
    (folder.checkpoints / "step-00000018").touch()
    assert (folder.newest_checkpoint() or (0, 0))[0] == 6
