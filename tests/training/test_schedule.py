"""Durations in steps; rates as pure functions of the step, torch's own where torch has them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pydantic import TypeAdapter
from torch.optim import lr_scheduler

from fasttrain.config import Config, Duration, Schedule
from fasttrain.errors import UserError
from fasttrain.training import parts
from fasttrain.training.schedule import Rates, check, is_due, to_steps

EPOCH, TOTAL = 97, 970

Torch = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def schedule(**values: object) -> Schedule:
    found: Schedule = TypeAdapter(Schedule).validate_python(values)
    return found


def curve(total: int, **values: object) -> list[float]:
    rates = Rates(schedule(**values), 10, total)
    return [rates(step) for step in range(total)]


# Durations


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


# Against torch


@pytest.mark.parametrize(
    ("values", "theirs"),
    [
        (
            {"name": "step", "every": "2epochs", "gamma": 0.3},
            lambda optimizer: lr_scheduler.StepLR(optimizer, 20, 0.3),
        ),
        (
            {"name": "cosine"},
            lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 100),
        ),
        (
            {"name": "cosine", "floor": 0.05, "t_max": "100steps"},
            lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 100, eta_min=0.05),
        ),
        (
            {"name": "one_cycle"},
            lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=100),
        ),
        (
            {
                "name": "one_cycle",
                "warmup": "15%",
                "curve": "linear",
                "start": 0.1,
                "floor": 0.1 / 50,
            },
            lambda optimizer: lr_scheduler.OneCycleLR(
                optimizer,
                1.0,
                total_steps=100,
                pct_start=0.15,
                anneal_strategy="linear",
                div_factor=10,
                final_div_factor=50,
            ),
        ),
        (
            {"name": "linear", "floor": 0.2},
            lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.2, 100),
        ),
    ],
    ids=["step", "cosine", "cosine-floor", "one_cycle", "one_cycle-linear", "linear"],
)
def test_a_curve_is_torchs_own(values: dict[str, object], theirs: Torch) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0, momentum=0.9)
    scheduler = theirs(optimizer)
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert curve(100, **values) == pytest.approx(expected, abs=1e-9)


# Key points


def test_a_constant_rate_stays() -> None:
    assert curve(10, name="constant", warmup="0steps") == [1.0] * 10


def test_a_linear_rate_falls_evenly_to_nothing_after_the_last_step() -> None:
    assert curve(5, name="linear", warmup="0steps") == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_a_cosine_rate_follows_half_a_period() -> None:
    expected = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    found = curve(8, name="cosine", warmup="0steps")
    assert found == pytest.approx(expected)
    assert (found[0], found[4]) == pytest.approx((1.0, 0.5))


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_a_warm_up_climbs_evenly_and_is_not_zero_at_first(name: str) -> None:
    assert curve(20, name=name, warmup="4steps")[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_after_the_warm_up_the_whole_curve_follows() -> None:
    assert curve(10, name="linear", warmup="5steps")[5:] == curve(5, name="linear", warmup="0steps")
    assert curve(13, name="cosine", warmup="5steps")[5:] == curve(8, name="cosine", warmup="0steps")


def test_a_step_schedule_counts_from_the_start_of_the_run() -> None:
    found = curve(40, name="step", every="10steps", gamma=0.5, warmup="4steps")
    assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert [found[at] for at in (9, 10, 19, 20, 39)] == [1, 0.5, 0.5, 0.25, 0.125]


def test_a_cosine_that_ends_early_stays_at_its_floor() -> None:
    found = curve(100, name="cosine", t_max="50%", floor=0.1, warmup="20steps")
    assert found[20] == 1.0
    assert found[45] == pytest.approx(0.55)
    assert found[70:] == pytest.approx([0.1] * 30)


def test_a_cycle_has_its_top_at_the_end_of_the_warm_up() -> None:
    found = curve(100, name="one_cycle", warmup="20steps", start=0.2, floor=0.01)
    assert (found[0], found[19], found[99]) == pytest.approx((0.2, 1.0, 0.01))
    assert found[:20] == sorted(found[:20])
    assert found[19:] == sorted(found[19:], reverse=True)


@pytest.mark.parametrize("warmup", ["0steps", "1step"])
def test_a_cycle_without_a_climb_starts_at_its_top(warmup: str) -> None:
    assert curve(10, name="one_cycle", warmup=warmup)[0] == 1.0


NAMES = [
    {"name": "constant"},
    {"name": "step", "every": "1epochs"},
    {"name": "cosine"},
    {"name": "one_cycle"},
    {"name": "linear"},
]


@pytest.mark.parametrize("values", NAMES, ids=lambda values: str(values["name"]))
@pytest.mark.parametrize("warmup", ["0epochs", "1step", "20%", "100%"])
@pytest.mark.parametrize("total", [1, 2, 100])
def test_a_rate_is_above_0_and_never_above_1(
    values: dict[str, object], warmup: str, total: int
) -> None:
    assert all(0 < factor <= 1 for factor in curve(total, **values, warmup=warmup))


# Schedules that do not fit

EPOCHS = 20


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "step", "every": "20epochs"}, "the first step lies beyond the end"),
        ({"name": "step", "every": "100%"}, "the first step lies beyond the end"),
        ({"name": "step", "every": "200steps"}, "the first step lies beyond the end"),
        ({"name": "cosine", "t_max": "30epochs"}, "does not fit into 20 epochs"),
        ({"name": "cosine", "t_max": "19epochs", "warmup": "2epochs"}, "does not fit"),
        ({"name": "cosine", "t_max": "201steps"}, "does not fit"),
        *(({**values, "warmup": "21epochs"}, "longer than the run") for values in NAMES),
        ({"name": "linear", "warmup": "201steps"}, "longer than the run"),
    ],
    ids=str,
)
def test_what_no_run_can_follow_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        check(schedule(**values), EPOCHS, 10)
    message = str(caught.value)
    assert message.startswith("schedule.")
    assert len(message.splitlines()) == 1
    if "steps" not in str(values):  # then it is known before the data set is
        with pytest.raises(UserError, match=words):
            check(schedule(**values), EPOCHS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "cosine", "t_max": "10epochs"}, "ends before the run"),
        ({"name": "cosine", "t_max": "199steps"}, "ends before the run"),
        ({"name": "step", "every": "2epochs", "warmup": "3epochs"}, "shorter than the warm-up"),
        ({"name": "linear", "warmup": "60%"}, "more than half"),
        ({"name": "one_cycle", "warmup": "60%"}, "more than half"),
    ],
    ids=str,
)
def test_what_is_odd_is_said(values: dict[str, object], words: str) -> None:
    (line,) = check(schedule(**values), EPOCHS, 10)
    assert words in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "values",
    [
        *NAMES,
        {"name": "cosine", "t_max": "100%"},
        {"name": "cosine", "t_max": "90%", "warmup": "10%"},
        {"name": "cosine", "t_max": "15epochs", "warmup": "5epochs"},
        {"name": "step", "every": "19epochs"},
    ],
    ids=str,
)
def test_what_fits_is_not_talked_about(values: dict[str, object]) -> None:
    assert check(schedule(**values), EPOCHS, 10) == []


def test_a_run_refuses_before_it_looks_for_a_device() -> None:
    late = {"schedule": {"name": "step", "every": "30epochs"}, "train": {"epochs": 20}}
    with pytest.raises(UserError, match=r"schedule\.every=30epochs"):
        parts.check(Config.model_validate(late))
    uneven = {"data": {"batch_size": 64}, "train": {"accumulate": 3}}
    with pytest.raises(UserError, match=r"train\.accumulate=3 does not divide the 64"):
        parts.check(Config.model_validate(uneven))


def test_every_rank_cuts_its_own_slice() -> None:
    config = Config.model_validate({"data": {"batch_size": 64}, "train": {"accumulate": 32}})
    parts.check_world(config, 2)
    with pytest.raises(UserError, match="does not divide the 16 pictures of a process's share"):
        parts.check_world(config, 4)
