"""The benchmarks run, keep every figure, and draw it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import scaling
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
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    assert all(text in drawn for text in ("this", "that", "images/s", OUTCOME.title))


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


# Scaling


def test_a_ring_sends_twice_all_but_its_own_share() -> None:
    assert scaling.ring_bytes(1000, 1) == 0
    assert scaling.ring_bytes(1000, 2) == 1000
    assert scaling.ring_bytes(1000, 4) == 1500


def test_efficiency_falls_when_sending_outlasts_the_backward_pass() -> None:
    slow, fast = (scaling.Link("", speed, speed, 0.0) for speed in (1e6, 1e12))
    assert scaling.expected_efficiency(0.3, 10**6, 1, slow) == 1
    assert scaling.expected_efficiency(0.3, 10**6, 2, fast) == 1
    # 1 MB at 0.8 MB/s takes 1.25 s, of which 0.2 s are hidden
    assert scaling.expected_efficiency(0.3, 10**6, 2, slow) == pytest.approx(0.3 / 1.35)
