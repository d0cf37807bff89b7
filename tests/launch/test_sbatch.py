"""`launch/slurm/train.sbatch` without Slurm: what is refused before a node is asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.distributed.launching import ROOT

JOB = {"SLURM_JOB_NAME": "mine", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a recipe is missing: sbatch launch/slurm/train.sbatch configs/advanced.yaml"),
        (["run.yaml"], "VENV=nowhere cannot be activated; name the environment in which fasttrain "
         "is installed"),
    ],
)  # fmt: skip
def test_a_mistake_ends_with_2_and_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    """With a stand-in for srun, which would leave a file."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n: > asked\nexit 1\n")
    srun.chmod(0o700)
    ended = subprocess.run(
        ["bash", ROOT / "launch" / "slurm" / "train.sbatch", *words],
        cwd=tmp_path,
        env={**os.environ, **JOB, "VENV": "nowhere", "PATH": f"{srun.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout + ended.stderr) == (2, f"train.sbatch: {said}\n")
    assert not (tmp_path / "asked").exists()
