"""Processes that cannot work together say why, in a line and in time, with exit code 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from fasttrain.cli import main
from fasttrain.config import load
from fasttrain.observe.folder import RunFolder
from tests.distributed.launching import HANGS_AFTER, complaints, on_ranks

CONFIG = """
data: {dataset: shapes, batch_size: 64, loader: resident}
train: {device: cpu, precision: fp32, compile: false}
"""
DOCTOR = ("doctor", "--distributed", "--timeout", "20")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def by_hand(
    port: int, *commands: tuple[Path, Sequence[str]], **other: str
) -> list[tuple[int, list[str]]]:
    """Start a rank of two for each folder and command; return exit codes and complaints."""
    started = []
    for rank, (folder, words) in enumerate(commands):
        place = {
            "RANK": str(rank), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "fasttrain", *words],
            cwd=folder,
            env={**os.environ, **place, **other},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
    said = [process.communicate(timeout=HANGS_AFTER)[0] for process in started]
    told = [[line for line in each.splitlines() if "fasttrain (" in line] for each in said]
    return [(process.returncode, lines) for process, lines in zip(started, told, strict=True)]


def test_without_a_launcher_it_says_how_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    refused = CliRunner().invoke(main, DOCTOR)
    assert refused.exit_code == 2
    assert "accelerate launch --config_file" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_launch_that_does_not_say_where_the_others_are_is_refused(
    folder: Path, port: int
) -> None:
    ((code, (line,)),) = by_hand(port, (folder, ("train", "config.yaml")), MASTER_ADDR="")
    assert code == 2
    assert line.startswith("fasttrain (rank 0): WORLD_SIZE is 2, but MASTER_ADDR not set; start ")


def test_another_process_that_never_comes_is_given_up(folder: Path, port: int) -> None:
    words = ("doctor", "--distributed", "--timeout", "2")
    ((code, (line,)),) = by_hand(port, (folder, words))
    assert code == 2
    assert line.startswith("fasttrain (rank 0): the 2 processes did not find each other (")
    assert f"reach rank 0 at 127.0.0.1:{port}" in line


def test_ranks_with_different_settings_are_named_and_neither_trains(
    folder: Path, port: int, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text(CONFIG + "seed: 7\n")
    words = ("train", "config.yaml", "--run-dir", str(tmp_path / "run"))
    for (code, (line,)), rank in zip(
        by_hand(port, (folder, words), (other, words)), range(2), strict=True
    ):
        assert code == 2
        assert line.startswith(f"fasttrain (rank {rank}): the ranks have different settings: ")
        assert "seed is 0 on rank 0 (" in line
        assert ", 7 on rank 1 (" in line
    assert not (tmp_path / "run").exists()


def test_a_run_that_only_one_machine_has_does_not_go_on(
    folder: Path, port: int, tmp_path: Path
) -> None:
    run, elsewhere = RunFolder(folder / "run"), tmp_path / "elsewhere"
    run.begin(load(folder / "config.yaml"))
    saved = run.checkpoints / "step-00000012" / "state.pt"
    saved.parent.mkdir(parents=True)
    saved.touch()
    elsewhere.mkdir()
    words = ("train", str(folder / "config.yaml"), "--run-dir", "run", "--resume")
    for code, (line,) in by_hand(port, (folder, words), (elsewhere, words)):
        assert code == 2
        assert "run is not shared with " in line
    assert [path.name for path in run.path.glob(".shared-*")] == []


def test_all_is_well_or_the_batch_does_not_fit(folder: Path) -> None:
    words = ("-m", "fasttrain", *DOCTOR, "--config", "config.yaml")
    (folder / "config.yaml").write_text(CONFIG.replace("64", "63"))
    ended = on_ranks(2, *words, folder=folder)
    lines = complaints(ended)
    assert len(lines) == 1, ended.stdout + ended.stderr
    (line,) = lines
    assert line.startswith("fasttrain (rank 0): rank 0 on ")
    assert "data.batch_size=63 cannot be divided among 2 processes" in line
    assert ended.stdout.count("fasttrain doctor") == 1
    assert "sums over 2 ranks: right; 64 KiB at " in ended.stdout
