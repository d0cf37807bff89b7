"""Several ranks that train in parts: the same weights, and gradients meet once a step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ("accelerate", "launch", "--config_file", str(ROOT / "launch" / "accelerate" / "cpu.yaml"))


def train(*launcher: str) -> dict[str, Any]:
    ended = subprocess.run(
        [*launcher, "-m", "tests.distributed.accumulation"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("found ")]
    return json.loads(line.removeprefix("found "))


def test_two_ranks_in_parts_are_one_rank_with_the_whole() -> None:
    python = Path(sys.executable)
    one = train(str(python))
    launcher = (str(python.parent / LAUNCH[0]), *LAUNCH[1:])
    two = train(*launcher, "--num_processes", "2", "--main_process_port", "0")
    for parts in ("1", "3"):
        assert two[parts]["weights"] == pytest.approx(one["1"]["weights"], abs=1e-6)
        assert one[parts]["weights"] == pytest.approx(one["1"]["weights"], abs=1e-6)
    assert two["1"]["reductions"] > 0
    assert two["3"]["reductions"] == two["1"]["reductions"]
