"""Trains a run that is killed with -9 again and again, and tells how it ended.

    python -m tests.resume.kills LOADER KILLS SEED FOLDER

It runs in a process of its own: each attempt is forked from one that has imported everything and
started no thread, so that it takes tenths of a second.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console

from fasttrain.config import Config
from fasttrain.data import sources
from fasttrain.data.shapes import ShapesSource
from fasttrain.observe.folder import RunFolder
from fasttrain.training.run import run

PATIENCE = 120  # seconds for one attempt: a guard against a hang


def recipe(loader: str) -> Config:
    """Everything on that has a state or draws random numbers."""
    return Config.model_validate(
        {
            "seed": 3,
            "data": {
                "dataset": "shapes", "batch_size": 16, "validation": 20, "loader": loader,
                "workers": 0, "augment": ["crop", "flip", "color_jitter", "mixup", "cutmix"],
            },
            "model": {
                "family": "attention_cnn", "stages": [{"width": 8}, {"width": 8}],
                "dropout": 0.2, "norm": "branch",
            },
            "optim": {"name": "muon", "rest": {"name": "adamw", "lr": 0.01}},
            "schedule": {"name": "one_cycle"},
            "train": {
                "epochs": 4, "device": "cpu", "precision": "fp32", "compile": False,
                "deterministic": True, "accumulate": 2, "clip_norm": 1.0, "ema": {"decay": 0.9},
                "log_every": "4steps",
            },
            "checkpoint": {"every": "3steps", "keep": 1},
        }
    )  # fmt: skip


def attempt(config: Config, folder: Path, seconds: float | None) -> int | None:
    """Fork a process that goes on with the run; kill its group after `seconds`.

    Returns its exit code, or `None` where it was killed.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        code = 1
        try:
            run(config, folder, resume=True, console=Console(quiet=True))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if seconds is None:
        raise TimeoutError(f"the run did not end in {PATIENCE} s")
    return None


def main(loader: str, kills: int, seed: int, folder: Path) -> None:
    """Train undisturbed, then with kills at random moments; both end in `folder`."""
    sources.ShapesSource = lambda: ShapesSource(train=120, test=30)  # type: ignore[misc,assignment]
    config = recipe(loader)
    start = time.monotonic()
    assert attempt(config, folder / "whole", None) == 0
    longest = time.monotonic() - start
    drawn = random.Random(seed)  # noqa: S311 - moments, no secrets
    killed = 0
    for _ in range(kills):
        code = attempt(config, folder / "killed", drawn.uniform(0, longest))
        assert code in (None, 0), f"an attempt ended with {code}"
        killed += code is None
        if RunFolder(folder / "killed").result.exists():
            break
    if not RunFolder(folder / "killed").result.exists():
        assert attempt(config, folder / "killed", None) == 0
    print(killed)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
