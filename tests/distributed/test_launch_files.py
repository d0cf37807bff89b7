"""The launch files are what Accelerate reads, and say which lines to change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.distributed.launching import CPU_CONFIG

FILES = sorted(CPU_CONFIG.parent.glob("*.yaml"))
# For each file: what it is for, and what a user must look at.
MEANT = {
    "cpu.yaml": ("MULTI_GPU", ["num_processes"]),
    "one_gpu.yaml": ("NO", []),
    "multi_gpu.yaml": ("MULTI_GPU", ["num_processes"]),
    "multi_node.yaml": (
        "MULTI_GPU",
        ["num_machines", "num_processes", "machine_rank", "main_process_ip", "main_process_port"],
    ),
}


def test_there_is_a_file_for_every_kind_of_launch() -> None:
    assert {file.name for file in FILES} == set(MEANT)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_accelerate_reads_it_and_the_lines_to_change_are_marked(file: Path) -> None:
    kind, marked = MEANT[file.name]
    read = load_config_from_file(str(file))  # refuses a key that it does not know
    assert read.distributed_type == kind
    assert read.num_processes >= read.num_machines
    text = file.read_text()
    assert re.findall(r"^(\w+):.*# change: ", text, flags=re.MULTILINE) == marked


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_command_in_it_is_one(file: Path) -> None:
    comment = file.read_text().split("compute_environment", 1)[0]
    assert f"accelerate launch --config_file launch/accelerate/{file.name} " in comment
    (recipe,) = set(re.findall(r"train (configs/\S+)", comment))
    assert (CPU_CONFIG.parents[2] / recipe).exists()
