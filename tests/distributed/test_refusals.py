"""Launches that cannot work end at once: one line with the mend, and nothing written."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from accelerate.commands.config import config_args

from fasttrain import runtime
from tests.distributed.launching import CPU_CONFIG, accelerate, complaints, on_ranks

CONFIG = """
data: {dataset: shapes, batch_size: 64}
train: {device: cpu, precision: fp32, compile: false}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the launcher is started: a configuration, and no run yet."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def train(*settings: str) -> tuple[str, ...]:
    return ("-m", "fasttrain", "train", "config.yaml", *settings)


def nothing_was_written(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_a_launch_that_silently_starts_one_process_is_refused(folder: Path) -> None:
    ended = accelerate("--cpu", "--num_processes", 2, *train(), folder=folder)
    (line,) = complaints(ended)
    assert line.startswith("fasttrain: 2 processes were asked for by the launcher's options")
    assert "but 1 started" in line
    assert "launch/accelerate/cpu.yaml" in line
    assert nothing_was_written(folder)


def test_fewer_ranks_than_the_configuration_asks_for_are_refused(folder: Path) -> None:
    lines = complaints(on_ranks(2, *train("train.processes=3"), folder=folder))
    for rank, line in enumerate(sorted(lines)):
        wanted = "3 processes were asked for by train.processes, but 2 started"
        assert line.startswith(f"fasttrain (rank {rank}): {wanted}")
        assert CPU_CONFIG.name in line
    assert len(lines) == 2
    assert nothing_was_written(folder)


def test_a_batch_that_the_ranks_cannot_share_is_refused_by_each_of_them(folder: Path) -> None:
    lines = complaints(on_ranks(2, *train("data.batch_size=63"), folder=folder))
    for rank, line in enumerate(sorted(lines)):
        assert line.startswith(f"fasttrain (rank {rank}): data.batch_size=63 cannot be divided")
        assert line.endswith("choose a multiple of 2")
    assert len(lines) == 2
    assert nothing_was_written(folder)


class Launched:
    """Stands in for a process that this command line started."""

    def __init__(self, command: str) -> None:
        self._command = command

    def parent(self) -> Launched:
        return self

    def cmdline(self) -> list[str]:
        return self._command.split()


@pytest.mark.parametrize(
    ("command", "processes"),
    [
        ("python /bin/accelerate launch --cpu --num_processes 2 -m fasttrain train a.yaml", 2),
        ("python /bin/accelerate launch --num-processes=3 -m fasttrain train a.yaml", 3),
        ("python /bin/accelerate-launch --cpu --num_processes 2 -m fasttrain train a.yaml", 2),
        ("python -m accelerate.commands.launch --num_processes 2 -m fasttrain train a.yaml", 2),
        ("python -m accelerate.commands.accelerate_cli launch --num_processes 2 train.py", 2),
        ("python /bin/accelerate launch --config_file 4.yaml -m fasttrain train a.yaml", 4),
        ("python /bin/accelerate launch --config_file 4.yaml --num_processes 2 train.py", 2),
        ("python /bin/accelerate launch -m fasttrain train a.yaml", 5),  # the user's own file
        ("python /bin/accelerate launch --cpu -m fasttrain train a.yaml", None),
        ("python /bin/accelerate launch --config_file empty.yaml train.py", 1),
        ("python /bin/accelerate launch train.py --num_processes", None),
        ("bash launch.sh", None),
        ("bash /home/me/accelerate-runs/launch", None),
        ("python -m pytest", None),
    ],
)
def test_what_the_launcher_was_asked_for_is_read_off_its_command_line(
    command: str, processes: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.yaml").touch()
    for number in (4, 5):
        (tmp_path / f"{number}.yaml").write_text(f"num_processes: {number}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(config_args, "default_config_file", str(tmp_path / "5.yaml"))
    monkeypatch.setattr(psutil, "Process", lambda: Launched(command))
    assert runtime._asked_of_launcher() == processes
