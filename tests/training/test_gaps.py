"""On a GPU the device itself says how long it had no batch; the host only asks what has passed."""

from __future__ import annotations

import time

import pytest
import torch

from fasttrain.training.clock import Clock
from fasttrain.training.gaps import Gaps


class Device:
    """Works off its queue while the host goes on; both have one time, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0  # the host's
        self.free = 0.0  # when the device has done all that it was asked

    def work(self, seconds: float) -> None:
        self.free = max(self.free, self.now) + seconds

    def event(self) -> Mark:
        return Mark(self)


class Mark:
    def __init__(self, device: Device) -> None:
        self._device = device

    def record(self) -> None:
        self.time = max(self._device.free, self._device.now)

    def query(self) -> bool:
        return self._device.now >= self.time

    def elapsed_time(self, other: Mark) -> float:
        return 1000 * (other.time - self.time)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr("time.perf_counter", lambda: device.now)
    return device


def train(device: Device, clock: Clock, loading: float, working: float, steps: int = 10) -> None:
    for _ in range(steps):
        device.now += loading  # the host waits for the loader
        clock.lap("data")
        device.work(working)
        device.now += 0.01  # the host asks for the kernels
        clock.lap("train")


def settle(device: Device, clock: Clock) -> None:
    device.now = max(device.now, device.free)
    clock.lap("train")


def test_a_loader_that_is_faster_than_the_device_costs_nothing(device: Device) -> None:
    clock = Clock(Gaps(device.event))
    train(device, clock, loading=0.5, working=1.0)
    settle(device, clock)
    assert clock.data_stall == 0.0
    assert clock.train_seconds == pytest.approx(0.5 + 10 * 1.0)


def test_a_slow_loader_costs_what_the_device_waits_for_it(device: Device) -> None:
    clock = Clock(Gaps(device.event))
    train(device, clock, loading=2.99, working=1.0)
    settle(device, clock)
    # Each step takes the host 3 s, the device 1 s; nobody knows when the first batch was due.
    assert clock.train_seconds == pytest.approx(9 * 3.0 + 2.99 + 1.0)
    assert clock.seconds["data"] == pytest.approx(9 * 2.0)
    assert clock.data_stall == pytest.approx(18 / 30.99)


def test_what_the_device_has_not_done_yet_is_told_later(device: Device) -> None:
    clock = Clock(Gaps(device.event))
    train(device, clock, loading=0.0, working=1.0, steps=2)
    device.now = device.free + 5
    clock.lap("data")  # the gap closes here, which the device reaches at once
    assert clock.seconds["data"] == pytest.approx(5.0)
    device.work(100.0)
    clock.lap("train")
    device.now += 1
    clock.lap("data")  # behind 100 s of work: nobody waits for that to be told
    assert clock.seconds["data"] == pytest.approx(5.0)


def test_an_evaluation_is_no_gap(device: Device) -> None:
    clock = Clock(Gaps(device.event))
    train(device, clock, loading=0.0, working=0.1)
    settle(device, clock)
    device.now += 1000
    clock.lap("evaluate")
    train(device, clock, loading=0.0, working=0.1)
    settle(device, clock)
    assert clock.seconds["evaluate"] == 1000.0
    assert clock.data_stall == 0.0


@pytest.mark.gpu
def test_a_gpu_says_what_it_waited_for_a_slow_loader() -> None:
    clock = Clock(Gaps())
    clock.start()
    for _ in range(20):
        time.sleep(0.05)
        clock.lap("data")
        torch.cuda._sleep(15_000_000)  # cycles: about 10 ms
        clock.lap("train")
    torch.cuda.synchronize()
    clock.lap("train")
    assert 0.5 < clock.data_stall < 0.95
