"""Batches that come in groups are those that come one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fasttrain.config import Augmentation, Crop, Flip, MixUp
from fasttrain.data.augment import Transform
from fasttrain.data.groups import GroupLoader, Groups, batches_at_once
from fasttrain.data.loader import Loader, make_loader
from fasttrain.data.plan import Batch, Plan, Shard, TrainingPlan
from fasttrain.data.store import Split

AUGMENT: tuple[Augmentation, ...] = (Crop(padding=2), Flip(), MixUp())
TRANSFORM = Transform(AUGMENT, (120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split() -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (62, 8, 8, 3), dtype=np.uint8)
    return Split(images, generator.integers(0, 10, 62, dtype=np.int64))


def plan() -> TrainingPlan:
    return TrainingPlan(np.arange(62), 8, 3, AUGMENT, (8, 8))  # seven batches an epoch


def loader(split: Split, plan: Plan, shard: Shard) -> Loader:
    return make_loader("resident", split, plan, shard, TRANSFORM, CPU, compile=False)


@pytest.mark.parametrize("at_once", [1, 3, 7, 50])
@pytest.mark.parametrize("shard", [Shard(), Shard(1, 2)])
@pytest.mark.parametrize("first", [0, 4, 6, 7, 12])
def test_groups_deliver_what_single_batches_hold(
    split: Split, at_once: int, shard: Shard, first: int
) -> None:
    single = loader(split, plan(), shard)
    grouped = GroupLoader(
        Groups(plan(), shard, at_once), lambda groups, whole: loader(split, groups, whole)
    )

    expected, found = list(single.batches(first, 17)), list(grouped.batches(first, 17))

    assert len(found) == len(expected) == 17 - first
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.images.stride() == other.images.stride()
        assert torch.equal(one.labels, other.labels)
        assert one.valid == other.valid
        assert one.mixing is not None
        assert other.mixing is not None
        assert torch.equal(one.mixing, other.mixing)


def test_a_pass_of_no_batches_asks_for_none(split: Split) -> None:
    grouped = GroupLoader(Groups(plan(), Shard(), 2), lambda g, w: loader(split, g, w))

    assert list(grouped.batches(3, 3)) == []


def test_an_epoch_is_cut_for_a_rank_once() -> None:
    groups = Groups(plan(), Shard(1, 2), 3)

    assert groups.epoch(2) is groups.epoch(2)


def test_a_group_is_worth_a_gpus_while_and_never_less_than_a_batch() -> None:
    def at_once(count: int, batch: int, size: tuple[int, int]) -> int:
        return batches_at_once(TrainingPlan(np.arange(count), batch, 0, (), size), batch, size)

    assert at_once(50_000, 2000, (32, 32)) == 5
    assert at_once(49_000, 128, (32, 32)) == 77  # five groups for 382 batches
    assert at_once(50_000, 512, (224, 224)) == 1
    assert at_once(600, 100, (32, 32)) == 6


def test_a_batch_that_the_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="no 3 equal slices"):
        Groups(plan(), Shard(0, 3), 2)


def test_an_epoch_may_be_asked_for_again() -> None:
    """A run that goes back after a divergence does."""
    groups = Groups(plan(), Shard(), 3)
    seen = [groups.epoch(epoch).indices for epoch in (0, 1, 0, 3)]

    expected = [Groups(plan(), Shard(), 3).epoch(epoch).indices for epoch in (0, 1, 0, 3)]

    for one, other in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_goes_wrong_in_planning_ahead_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    source = plan()
    groups = Groups(source, Shard(), 3)
    planned = source.epoch

    def fail(epoch: int) -> Batch:
        if epoch == 1:
            raise MemoryError("too many")
        return planned(epoch)

    monkeypatch.setattr(source, "epoch", fail)
    groups.epoch(0)

    with pytest.raises(MemoryError, match="too many"):
        groups.epoch(1)


def test_closing_ends_the_planning(split: Split) -> None:
    grouped = GroupLoader(Groups(plan(), Shard(), 2), lambda g, w: loader(split, g, w))
    next(grouped.batches(0, 1))
    (planner,) = grouped._groups._thread._threads

    grouped.close()

    planner.join(10)
    assert not planner.is_alive()
