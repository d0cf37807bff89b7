"""What every test shares: a GPU marker, a cache of its own, a place to run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from fasttrain.compiler import missing_for_compile
from fasttrain.config import Train
from fasttrain.runtime import Runtime


def pytest_configure() -> None:
    os.environ["FASTTRAIN_REPORT"] = "0"  # drawing takes longer than most tests' training


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="there is no NVIDIA GPU"))


REAL_SET = os.environ.get("FASTTRAIN_DATA")


@pytest.fixture
def real_set() -> Path:
    """The real CIFAR-10, where FASTTRAIN_DATA says where it lies."""
    if not REAL_SET:
        pytest.skip("FASTTRAIN_DATA names no data set")
    return Path(REAL_SET)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache, or finds the user's data by accident."""
    monkeypatch.setenv("FASTTRAIN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("FASTTRAIN_DATA", raising=False)


@pytest.fixture
def compiler() -> None:
    """What torch.compile needs, where it is installed: without it training runs uncompiled."""
    if missing := missing_for_compile():
        pytest.skip(f"torch.compile lacks {missing}")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch share a task between two threads, however many a worker of `make test` has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def configs() -> Path:
    return Path(__file__).parent.parent / "configs"


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """One process on the CPU, in full precision and uncompiled."""
    yield Runtime(Train(device="cpu", precision="fp32", compile=False))
    AcceleratorState._reset_state(reset_partial_state=True)
