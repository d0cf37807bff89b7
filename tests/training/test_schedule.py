"""Durations in steps, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math

import pytest

from fasttrain.config import Duration, Schedule
from fasttrain.training.schedule import is_due, learning_rate_factor, to_steps

EPOCH, TOTAL = 97, 970


def curve(name: str, warmup: int, total: int) -> list[float]:
    schedule = Schedule.model_validate({"name": name})
    return [learning_rate_factor(schedule, step, warmup, total) for step in range(total)]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("20steps", 20),
        ("5000steps", 5000),
        ("1epochs", 97),
        ("2.5epochs", 242),
        ("10%", 97),
        ("100%", 970),
        ("0.01%", 1),
        ("0.001epochs", 1),
        ("0steps", 0),
        ("0epochs", 0),
        ("0%", 0),
    ],
)
def test_a_duration_is_so_many_steps(text: str, steps: int) -> None:
    assert to_steps(Duration.parse(text), EPOCH, TOTAL) == steps


def test_minutes_have_no_number_of_steps() -> None:
    with pytest.raises(ValueError, match="5min has no fixed number of steps"):
        to_steps(Duration.parse("5min"), EPOCH, TOTAL)


def test_what_is_due_every_so_often_is_due_at_its_multiples_and_at_the_end() -> None:
    assert [step for step in range(1, 11) if is_due(step, 3, 10)] == [3, 6, 9, 10]
    assert [step for step in range(1, 11) if is_due(step, 5, 10)] == [5, 10]
    assert [step for step in range(1, 11) if is_due(step, 50, 10)] == [10]


def test_what_is_never_due_is_due_at_the_end() -> None:
    assert [step for step in range(1, 11) if is_due(step, 0, 10)] == [10]


def test_a_constant_rate_stays() -> None:
    assert curve("constant", 0, 10) == [1.0] * 10


def test_a_linear_rate_falls_evenly_to_nothing_after_the_last_step() -> None:
    assert curve("linear", 0, 5) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_a_cosine_rate_follows_half_a_period() -> None:
    expected = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    found = curve("cosine", 0, 8)
    assert found == pytest.approx(expected)
    assert (found[0], found[4]) == pytest.approx((1.0, 0.5))


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_a_warm_up_climbs_evenly_and_is_not_zero_at_first(name: str) -> None:
    assert curve(name, 4, 20)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_after_the_warm_up_the_whole_curve_follows() -> None:
    assert curve("linear", 5, 10)[5:] == curve("linear", 0, 5)
    assert curve("cosine", 5, 13)[5:] == curve("cosine", 0, 8)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (1, 1), (10, 10), (20, 10), (0, 1000)])
def test_a_rate_is_above_0_and_never_above_1(name: str, warmup: int, total: int) -> None:
    assert all(0 < factor <= 1 for factor in curve(name, warmup, total))
