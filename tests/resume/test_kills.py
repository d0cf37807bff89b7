"""Killed with -9 anywhere and as often as you like, a run ends as the undisturbed one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fasttrain.observe import journal
from fasttrain.training import checkpoint
from tests.distributed.launching import ROOT
from tests.training.test_checkpoint import build, snapshot

LAST = "step-00000024"
CLOCK = {"images_per_second", "data_stall", "seconds"}


def train_with_kills(loader: str, kills: int, seed: int, folder: Path) -> int:
    """Return how many kills met a run that was still going."""
    words = ["tests.resume.kills", loader, str(kills), str(seed), str(folder)]
    ended = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


def records(folder: Path) -> list[dict[str, Any]]:
    """The journal without what the clock says."""
    written = journal.read(folder / "metrics.jsonl")
    return [{key: record[key] for key in record.keys() - CLOCK} for record in written]


def assert_same_end(folder: Path) -> None:
    whole, killed = (folder / name / "checkpoints" / LAST for name in ("whole", "killed"))
    for name in ("model.safetensors", "ema.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert records(folder / "whole") == records(folder / "killed")


@pytest.mark.parametrize("loader", ["resident", "dali"])
def test_a_run_that_is_killed_ends_as_the_undisturbed_one(loader: str, tmp_path: Path) -> None:
    if loader == "dali":
        pytest.importorskip("nvidia.dali")
    assert train_with_kills(loader, 4, 1, tmp_path) > 0
    assert_same_end(tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("loader", ["resident", "dali", "reference"])
def test_thirty_kills(loader: str, tmp_path: Path) -> None:
    killed, seed = 0, 0
    while killed < 30:
        seed += 1
        folder = tmp_path / str(seed)
        killed += train_with_kills(loader, 30 - killed, seed, folder)
        assert_same_end(folder)


WRITER = """
import sys
from pathlib import Path
from fasttrain.training import checkpoint
from tests.training.test_checkpoint import build, snapshot

print("begun", flush=True)
first = checkpoint.newest(Path(sys.argv[1]))[0]
for step in range(int(first.name[5:]) + 1, 10**6):
    checkpoint.save(Path(sys.argv[1]), snapshot(step, build(step), {"step": step}), keep=1)
"""


@pytest.mark.parametrize(
    "kills", [5, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_a_kill_in_the_middle_of_a_write_leaves_a_whole_checkpoint(
    kills: int, tmp_path: Path
) -> None:
    """Only the newest is kept; the number of the newest never falls."""
    checkpoint.save(tmp_path, snapshot(1, build(1), {"step": 1}), keep=1)
    steps = [1]
    generator = torch.Generator().manual_seed(kills)
    for wait in torch.rand(kills, generator=generator).tolist():
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(wait)
            os.kill(writer.pid, 9)
        newest, passed_over = checkpoint.newest(tmp_path)
        assert newest is not None
        assert passed_over == []
        assert checkpoint.load_state(newest)["step"] == int(newest.name[5:])
        steps.append(int(newest.name[5:]))
    assert steps == sorted(steps)
    assert steps[-1] > kills
