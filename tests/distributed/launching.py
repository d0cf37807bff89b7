"""The real launcher on this machine's CPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fasttrain

ROOT = Path(__file__).parents[2]
CPU_CONFIG = ROOT / "launch" / "accelerate" / "cpu.yaml"
HANGS_AFTER = 200  # seconds: a guard against a hang, and no measure of speed


def accelerate(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `accelerate launch` in a folder; `words` are its options and what it starts."""
    launcher = Path(sys.executable).parent / "accelerate"
    return subprocess.run(
        [launcher, "launch", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
    )


def on_ranks(world: int, *words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Start what `words` say on `world` ranks, as a user would."""
    options = ("--config_file", CPU_CONFIG, "--num_processes", world, "--main_process_port", 0)
    return accelerate(*options, *words, folder=folder)


def complaints(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """What our processes said in a launch that failed; the launcher says a lot around it."""
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0, said
    assert f'File "{Path(fasttrain.__file__).parent}' not in said, said  # of a traceback
    assert "exitcode  : 2 " in said or "returned non-zero exit status 2." in said, said
    return [line for line in said.splitlines() if line.startswith("fasttrain") and ":" in line]
