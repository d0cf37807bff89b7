"""The gates' temperature over a run, and what is said about odd settings before it starts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from fasttrain.config import CnnModel, Config
from fasttrain.training.checks import oddities
from fasttrain.training.schedule import gate_temperature

STEPS = 10  # in an epoch


def config(**model: Any) -> Config:
    settings = {"family": "attention_cnn", **model}
    return Config.model_validate({"model": settings, "train": {"epochs": 20}})


def temperatures(**gate: Any) -> list[float]:
    model = config(gate=gate).model
    return [gate_temperature(model, step, STEPS, 20 * STEPS) for step in range(20 * STEPS)]


def test_the_temperature_falls_in_a_straight_line_and_then_stays_at_one() -> None:
    found = temperatures(temperature=30, anneal="10epochs")
    assert found[0] == 30
    assert found[50] == pytest.approx(15.5)
    assert found[99] == pytest.approx(1.29)
    assert found[100:] == [1.0] * 100
    falls = [before - after for before, after in itertools.pairwise(found[:101])]
    assert falls == pytest.approx([0.29] * 100)


@pytest.mark.parametrize("anneal", ["100steps", "50%"])
def test_its_length_has_every_unit_of_a_schedule(anneal: str) -> None:
    assert temperatures(anneal=anneal) == temperatures(anneal="10epochs")


def test_without_a_length_it_is_one_from_the_start() -> None:
    assert set(temperatures(anneal="0epochs")) == {1.0}


@pytest.mark.parametrize("name", ["sigmoid", "uniform", "none"])
def test_gates_without_a_temperature_have_one(name: str) -> None:
    assert set(temperatures(name=name)) == {1.0}
    assert gate_temperature(CnnModel(), 0, STEPS, 20 * STEPS) == 1.0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"branches": 1}, "weights a single branch"),
        ({"branches": 1, "gate": "sigmoid"}, "weights a single branch"),
        ({"gate": {"anneal": "21epochs"}}, "model.gate.anneal=21epochs is longer than the run"),
        ({"gate": {"anneal": "201steps"}}, "model.gate.anneal=201steps is longer than the run"),
    ],
)
def test_what_is_legal_but_odd_is_said(model: dict[str, Any], words: str) -> None:
    (oddity,) = oddities(config(**model), STEPS)
    assert words in oddity


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"branches": 1, "gate": "none"},
        {"gate": {"anneal": "20epochs"}},
        {"gate": {"name": "sigmoid", "anneal": "21epochs"}},
        {"gate": {"temperature": 1, "anneal": "21epochs"}},
        {"family": "cnn"},
    ],
)
def test_what_is_as_it_should_be_is_not_remarked_on(model: dict[str, Any]) -> None:
    assert not oddities(config(**model), STEPS)
