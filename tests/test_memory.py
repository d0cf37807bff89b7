"""Freed memory stays in the process, to be used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# mallinfo2(3): `hblkhd` is what is mapped from the system for single blocks, `fordblks` what is
# free in the process.
PROBE = """
import ctypes, sys
import torch
from fasttrain import memory

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

look = ctypes.CDLL(None).mallinfo2
look.restype = Info
kept = memory.keep_freed()
if sys.argv[1] == "back":
    memory.give_back()
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
before = look().hblkhd
block = torch.ones(25_000_000)
mapped = look().hblkhd - before
del block
if sys.argv[1] == "trim":
    before = resident()
    memory.trim()
    mapped = before - resident()
print(kept, mapped, look().fordblks)
"""
SIZE = 100_000_000

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries decide by themselves"
)


def probe(how: str = "keep", **environment: str) -> tuple[str, int, int]:
    """Whether memory is kept, what of 100 MB is mapped apart, and what is free after them."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, how], check=True, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip
    kept, mapped, free = done.stdout.split()
    return kept, int(mapped), int(free)


def test_what_is_freed_stays() -> None:
    kept, mapped, free = probe()
    assert kept == "True"
    assert mapped == 0
    assert free >= SIZE


def test_its_pages_can_be_handed_back_once() -> None:
    _, handed, _ = probe("trim")
    assert handed >= 0.9 * SIZE


def test_it_can_be_undone() -> None:
    _, mapped, free = probe("back")
    assert mapped >= SIZE
    assert free < SIZE


@pytest.mark.parametrize(
    "variable", [{"MALLOC_MMAP_MAX_": "70000"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=70000"}]
)
def test_a_user_who_has_decided_is_obeyed(variable: dict[str, str]) -> None:
    kept, mapped, free = probe(**variable)
    assert kept == "False"
    assert mapped >= SIZE
    assert free < SIZE
