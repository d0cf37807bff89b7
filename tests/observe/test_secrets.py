"""A key that is planted anywhere is found nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fasttrain.config import load
from fasttrain.errors import UserError
from fasttrain.observe.choosing import choose
from fasttrain.redact import redact
from tests.distributed.launching import ROOT

KEY = "7f3a" * 10  # of the form of W&B's
WORD = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    "text",
    [
        f"--api_key={WORD}",
        f"api_key={KEY}",
        f"the server refused {KEY}.",
        "wandb_v1_" + "a1B2" * 10,
        "hf_" + "a1B2" * 10,
        f"https://host/path?token={WORD}&x=1",
    ],
)
def test_what_looks_like_a_key_is_masked(text: str) -> None:
    masked = redact(text)
    assert "***" in masked
    assert not any(secret in masked for secret in (KEY, WORD, "a1B2" * 5))


@pytest.mark.parametrize(
    "text",
    [
        "lr=0.1",
        "sha256 " + "7f3a" * 16,
        "commit 9d2942d0aa11",
        "data.path=/data/tokens",
        "key: 3",
        f"snapshots/{'9d2942d0aa11' * 3}9d29/train",
    ],
)
def test_what_does_not_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_the_value_of_a_variable_that_holds_a_secret_is_masked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_API_TOKEN", WORD)
    monkeypatch.setenv("SHORT_KEY", "train")
    assert redact(f"train with {WORD}") == "train with ***"


@pytest.mark.parametrize(
    "override", [f"name=baseline-{KEY}", f"data.path=/data/set_{KEY}", f"data.path={WORD}"]
)
def test_what_would_be_masked_where_it_is_needed_again_is_refused(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configs: Path
) -> None:
    monkeypatch.setenv("MY_API_TOKEN", WORD)
    config = load(configs / "demo.yaml", [override])
    with pytest.raises(UserError, match="looks like a secret") as caught:
        choose(config, tmp_path / "run", resume=False)
    assert not any(secret in str(caught.value) for secret in (KEY, WORD))


PLANT = f"""
import sys
from fasttrain.training.step import TrainingStep
if sys.argv[-1] == "break":
    sys.argv.pop()
    def broken(self, step, *rest):
        raise RuntimeError("401 for {KEY}")
    TrainingStep.__call__ = broken
from fasttrain.cli import main
main()
"""
CONFIG = f"""
data: {{dataset: shapes, batch_size: 500, validation: 0}}
model: {{widths: [4]}}
train: {{epochs: 1, device: cpu, compile: false, evaluate_every: 100%}}
track: {{wandb: offline, project: {KEY}}}
"""


@pytest.mark.parametrize("how", ["ends", "breaks", "is refused"])
def test_a_planted_key_is_in_nothing_that_a_run_leaves_or_says(how: str, tmp_path: Path) -> None:
    """In the environment, on the command line, in the configuration and in an error."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    words = ["train", "config.yaml", "--run-dir", "run"]
    words += {"ends": [], "breaks": ["break"], "is refused": [f"track.wandb={KEY}"]}[how]
    ended = subprocess.run(
        [sys.executable, "-c", PLANT, *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "WANDB_API_KEY": KEY, "HF_TOKEN": WORD,
             "FASTTRAIN_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert ended.returncode == {"ends": 0, "breaks": 1, "is refused": 2}[how], ended.stderr
    assert KEY not in ended.stdout + ended.stderr
    left = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert bool(left) == (how != "is refused")
    if left:
        assert load(tmp_path / "run" / "config.yaml").track.project == "***"
    for path in left:
        assert KEY.encode() not in path.read_bytes(), path
        assert WORD.encode() not in path.read_bytes(), path
