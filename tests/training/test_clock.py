"""Every second of a run belongs to one phase, and the figures follow from the phases."""

from __future__ import annotations

import pytest
import torch

from fasttrain.training.clock import PHASES, Clock, Readout


class Time:
    """Stands still until it is told to pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr("time.perf_counter", time)
    return time


def test_the_phases_divide_the_time_without_rest(time: Time) -> None:
    clock = Clock()
    began = time.now
    for length, phase in enumerate((*PHASES, "data", "train"), start=1):
        time.wait(length)
        clock.lap(phase)
    assert clock.seconds == {
        "train": 1.0 + 7.0,
        "data": 2.0 + 6.0,
        "compile": 3.0,
        "evaluate": 4.0,
        "checkpoint": 5.0,
    }
    assert sum(clock.seconds.values()) == time.now - began


def test_two_laps_at_once_count_nothing_twice(time: Time) -> None:
    clock = Clock()
    time.wait(2)
    clock.lap("train")
    clock.lap("evaluate")
    assert clock.seconds["train"] == 2.0
    assert clock.seconds["evaluate"] == 0.0


def test_what_was_before_the_start_belongs_to_no_phase(time: Time) -> None:
    clock = Clock()
    time.wait(100)
    clock.start()
    time.wait(1)
    clock.lap("data")
    assert sum(clock.seconds.values()) == 1.0


def test_training_is_stepping_and_waiting_for_data_and_nothing_else(time: Time) -> None:
    clock = Clock()
    for seconds, phase in zip((1, 3, 50, 60, 70), PHASES, strict=True):
        time.wait(seconds)
        clock.lap(phase)
    clock.images = 800
    assert clock.train_seconds == 4.0
    assert clock.images_per_second == 200.0
    assert clock.data_stall == 0.75


def test_a_clock_that_has_not_run_divides_by_nothing() -> None:
    clock = Clock()
    assert (clock.images_per_second, clock.data_stall) == (0.0, 0.0)
    assert clock.interval() == {"images_per_second": 0.0, "data_stall": 0.0, "seconds": 0.0}


def test_an_interval_tells_what_was_since_the_last(time: Time) -> None:
    clock = Clock()
    step(clock, time, images=100, data=1, train=1)
    assert clock.interval() == {"images_per_second": 50.0, "data_stall": 0.5, "seconds": 2.0}
    step(clock, time, images=30, data=0, train=3)
    time.wait(1000)
    clock.lap("evaluate")
    assert clock.interval() == {"images_per_second": 10.0, "data_stall": 0.0, "seconds": 5.0}
    assert clock.interval() == {"images_per_second": 0.0, "data_stall": 0.0, "seconds": 5.0}


def step(clock: Clock, time: Time, images: int, data: float, train: float) -> None:
    time.wait(data)
    clock.lap("data")
    time.wait(train)
    clock.lap("train")
    clock.images += images


def test_a_restored_clock_counts_on(time: Time) -> None:
    before = Clock()
    step(before, time, images=100, data=1, train=3)
    before.lap("compile")
    time.wait(5)
    before.lap("compile")
    time.wait(1_000_000)  # the run is down
    after = Clock()
    after.restore(before.state())
    assert after.seconds == before.seconds
    assert after.images == before.images
    assert after.state() == before.state()
    after.start()
    step(after, time, images=60, data=0, train=2)
    assert after.images_per_second == 160 / 6
    assert after.interval() == {"images_per_second": 30.0, "data_stall": 0.0, "seconds": 6.0}


def test_the_state_of_a_clock_is_plain_numbers(time: Time) -> None:
    clock = Clock()
    time.wait(1)
    clock.lap("train")
    assert clock.state().keys() == {"images", *PHASES}
    assert all(type(value) in (int, float) for value in clock.state().values())


def test_what_is_read_out_arrives_once_and_in_order() -> None:
    readout = Readout()
    assert list(readout.arrived()) == []
    readout.push({"step": 1}, torch.tensor([1.0, 2.0]))
    readout.push({"step": 2}, torch.tensor([3.0, 4.0]))
    assert list(readout.arrived()) == [({"step": 1}, [1.0, 2.0]), ({"step": 2}, [3.0, 4.0])]
    assert list(readout.arrived(wait=True)) == []


@pytest.mark.gpu
def test_what_is_read_out_of_a_gpu_is_what_stood_there_when_it_was_pushed() -> None:
    readout = Readout()
    values = torch.zeros(2, device="cuda")
    for step in range(5):
        values = values + 1
        readout.push({"step": step}, values)
    found = list(readout.arrived(wait=True))
    assert found == [({"step": step}, [step + 1.0] * 2) for step in range(5)]
