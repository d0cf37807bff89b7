"""The benchmarks run, keep every figure, and draw it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.plot import draw
from benchmarks.record import Outcome
from tests.distributed.launching import ROOT

OUTCOME = Outcome(
    title="this against that",
    unit="images/s",
    runs={"this": [1.0, 3.0, 2.0], "that": [4.0, 4.5, 5.0]},
    settings={},
)


def test_a_picture_names_every_competitor_and_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(OUTCOME, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["step", "train", "overhead", "startup", "checkpoint"])
def test_a_benchmark_of_a_recipe_runs(name: str, tmp_path: Path) -> None:
    demo = ROOT / "configs" / "demo.yaml"
    words = [name, "--config", str(demo), "--quick", "--records", str(tmp_path)]
    ended = CliRunner().invoke(main, words, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    (record,) = tmp_path.glob("*.json")
    content = json.loads(record.read_text())
    assert content["quick"] is True
    assert all(min(found["all"]) > 0 for found in content["results"].values())
    assert record.with_suffix(".svg").exists()
