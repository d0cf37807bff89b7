"""The garbage collector rests until a run has started, and only then."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from fasttrain import garbage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.enable()


def test_nothing_is_collected_until_it_goes_on() -> None:
    frozen = gc.get_freeze_count()
    with garbage.postponed():
        assert not gc.isenabled()
        garbage.go_on()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
        kept = gc.get_freeze_count()
        gc.disable()
        garbage.go_on()  # once is enough: what the run itself makes is looked at
        assert gc.get_freeze_count() <= kept
        assert not gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_run_that_never_starts_leaves_it_on() -> None:
    with pytest.raises(KeyError), garbage.postponed():
        raise KeyError
    assert gc.isenabled()


def test_who_has_turned_it_off_keeps_it_off() -> None:
    gc.disable()
    with garbage.postponed():
        garbage.go_on()
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_without_a_postponement_nothing_is_done() -> None:
    frozen = gc.get_freeze_count()
    garbage.go_on()
    assert gc.get_freeze_count() == frozen
