"""Joules come from the driver's counter, and are missing where there is none."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import energy


class NVMLError(Exception):
    """As the library has it."""


class Library(types.ModuleType):
    """Stands in for `pynvml`, whose functions have NVML's names; a joule is drawn at every look."""

    NVMLError = NVMLError

    def __init__(self, fails: str = "") -> None:
        super().__init__("pynvml")
        self.fails, self.looks, self.gpu = fails, 0, None

    def _do(self, name: str) -> None:
        if self.fails == name:
            raise NVMLError(name)

    def nvmlInit(self) -> None:  # noqa: N802
        self._do("init")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        self._do("handle")
        return index

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:  # noqa: N802
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: Any) -> int:  # noqa: N802
        self._do("count")
        self.looks, self.gpu = self.looks + 1, gpu
        return 1000 * self.looks


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    energy._meter.cache_clear()
    yield
    energy._meter.cache_clear()


@pytest.mark.parametrize(
    ("visible", "gpu"), [(None, 0), ("2,3", 2), ("GPU-1-2, GPU-3-4", "GPU-1-2")]
)
def test_the_first_gpu_that_may_be_used_is_asked(
    visible: str | None, gpu: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    before, after = energy.joules(), energy.joules()
    assert library.gpu == gpu
    assert energy.between(before, after) == 1


@pytest.mark.parametrize("fails", ["init", "handle", "count"])
def test_a_driver_that_does_not_count_is_no_error(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Library(fails))
    assert energy.joules() is None
    assert energy.between(None, energy.joules()) is None


def test_without_the_library_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.joules() is None
