"""The memory of a run does not grow with its epochs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

# What a process has for itself, in bytes, whenever it has scored the validation split.
PROBE = """
import json, sys
from pathlib import Path
from rich.console import Console
from fasttrain.config import Config
from fasttrain.data import sources
from fasttrain.data.shapes import ShapesSource
from fasttrain.observe.journal import Journal
from fasttrain.training.run import run

sources.ShapesSource = lambda: ShapesSource(train=1000, test=200)
found, write = [], Journal.write

def watched(self, record):
    write(self, record)
    if record["kind"] == "evaluation":
        lines = Path("/proc/self/status").read_text().splitlines()
        found.append(next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

Journal.write = watched
run(Config.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]), Console(quiet=True))
print(json.dumps([1024 * kilobytes for kilobytes in found]))
"""
EPOCHS, BATCH = 50, 128
ONE_BATCH = BATCH * 3 * 32 * 32 * 4  # bytes


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what is in use")
@pytest.mark.parametrize("loader", ["resident", "dali", "reference"])
def test_fifty_epochs_take_no_more_memory_than_ten(tmp_path: Path, loader: str) -> None:
    config = {
        "data": {
            "dataset": "shapes",
            "batch_size": BATCH,
            "validation": 200,
            "loader": loader,
            "augment": ["crop", "flip", "cutout"],
        },
        "model": {"widths": [8, 16]},
        "train": {"epochs": EPOCHS, "device": "cpu", "ema": {"decay": 0.9}},
        "checkpoint": {"every": "1epochs"},
        "track": {"report": False},
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(config), str(tmp_path / "run")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    memory = json.loads(done.stdout.splitlines()[-1])
    assert len(memory) > EPOCHS
    early, late = median(memory[10:20]), median(memory[-10:])
    # Who forgets to let go of one batch an epoch is found out: that makes thirty of them.
    assert late - early < 10 * ONE_BATCH, [round(held / 1e6) for held in memory]
