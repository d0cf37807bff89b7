"""Several ranks that train in parts: the same weights, and gradients meet once a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launching import ROOT, on_ranks


def train(world: int, file: Path) -> dict[str, Any]:
    ended = on_ranks(world, "-m", "tests.distributed.accumulation", file, folder=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_three_ranks_that_start_anew_add_as_they_would_have(tmp_path: Path) -> None:
    """The order of gradients in a sum decides its rounding, where there are three to add."""
    assert train(3, tmp_path / "3.json")["goes on"]


def test_two_ranks_in_parts_are_one_rank_with_the_whole(tmp_path: Path) -> None:
    one, two = (train(world, tmp_path / f"{world}.json") for world in (1, 2))
    for parts in ("1", "3"):
        assert one[parts]["weights"] == pytest.approx(one["1"]["weights"], abs=1e-6)
        assert two[parts]["weights"] == pytest.approx(one["1"]["weights"], abs=1e-6)
    assert two["1"]["reductions"] > 1, "in several buckets, as of larger networks"
    assert two["3"]["reductions"] == two["1"]["reductions"]
