"""What steps came to is kept on the device, and comes out the same whenever one asks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fasttrain.training.counters import NEVER, Counters

CPU = torch.device("cpu")


def figures(step: int) -> tuple[Tensor, Tensor]:
    """The sums and the norm of some step; the sums are no round numbers."""
    drawn = torch.rand(4, generator=torch.Generator().manual_seed(step))
    return torch.stack([drawn[0] * 100, drawn[1].mul(8).floor(), torch.tensor(8.0)]), drawn[3]


def count(counters: Counters, steps: range) -> Counters:
    for step in steps:
        counters.note(step, *figures(step))
    return counters


def one_by_one(steps: range) -> Tensor:
    """What adding each step at once would come to."""
    totals = torch.zeros(5)
    for step in steps:
        sums, norm = figures(step)
        totals += torch.cat([sums, (norm * sums[2])[None], torch.zeros(1)])
    return totals


def count_spoiled(bad: int, spoiled: str, looks: tuple[int, ...] = ()) -> Counters:
    """A hundred steps, of which two have a figure that is no number."""
    counters = Counters(CPU)
    for step in range(100):
        sums, norm = figures(step)
        if step in (bad, bad + 5):
            (sums[:1] if spoiled == "loss" else norm).fill_(math.nan)
        counters.note(step, sums, norm)
        if step in looks:
            assert counters.first_bad.item() == (NEVER if step < bad else bad)
    return counters


@pytest.mark.parametrize("steps", [0, 1, 7, 64, 65, 200])
def test_totals_are_sums_over_all_steps(steps: int) -> None:
    assert torch.equal(count(Counters(CPU), range(steps)).take(), one_by_one(range(steps)))


def test_it_does_not_matter_when_one_looks(subtests: pytest.Subtests) -> None:
    undisturbed = count(Counters(CPU), range(100)).take()
    for cut in (1, 30, 64, 99):
        with subtests.test(cut=cut):
            counters = count(Counters(CPU), range(cut))
            restored = Counters(CPU)
            restored.restore(counters.totals)
            assert torch.equal(count(counters, range(cut, 100)).take(), undisturbed)
            assert torch.equal(count(restored, range(cut, 100)).take(), undisturbed)


def test_what_was_taken_is_not_counted_again() -> None:
    counters = count(Counters(CPU), range(10))
    first = counters.take()
    kept = first.clone()
    assert torch.equal(count(counters, range(10, 20)).take(), one_by_one(range(10, 20)))
    assert torch.equal(first, kept)
    assert counters.take().tolist() == [0.0] * 5


@pytest.mark.parametrize("spoiled", ["loss", "norm"])
@pytest.mark.parametrize("bad", [3, 63, 64, 90])
def test_the_first_bad_step_is_named(bad: int, spoiled: str) -> None:
    for looks in ((), (20, bad - 1), (20, bad + 2)):
        counters = count_spoiled(bad, spoiled, looks)
        assert counters.first_bad.item() == bad
    counters.restore(torch.zeros(5))
    assert counters.first_bad.item() == NEVER


def test_a_step_number_may_jump() -> None:
    counters = count(Counters(CPU), range(5))
    counters.note(40, torch.tensor([math.inf, 0, 8]), torch.tensor(1.0))
    assert counters.first_bad.item() == 40


def test_skipped_steps_are_counted_apart() -> None:
    counters = Counters(CPU, skips=True)
    sums, norm = figures(0)
    counters.note(0, sums, norm)
    counters.note(1, torch.tensor([math.nan, 3.0, 8.0]), torch.tensor(math.inf))
    loss, right, pictures, norms, skipped = counters.take().tolist()
    assert (loss, right, pictures, norms) == pytest.approx([*sums.tolist(), 8 * norm.item()])
    assert skipped == 8
    assert counters.first_bad.item() == NEVER
