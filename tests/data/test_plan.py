"""A batch is a pure function of (seed, step): what follows from it, and that it stays so."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fasttrain.config import Augmentation, Crop, Cutout, Flip
from fasttrain.data.plan import (
    Batch,
    EvaluationPlan,
    Plan,
    Shard,
    TrainingPlan,
    holdout,
    permutation,
    random_integers,
    random_words,
)

# What seed 3 gave when this was written.
GOLDEN_INDICES = [21, 65, 16, 68, 84, 27]
GOLDEN_CROP = [[6, 5], [2, 2], [8, 4]]
GOLDEN_ALTERNATING = [1, 0, 0, 0, 1, 0, 0, 1]
GOLDEN_RANDOM = [0, 0, 1, 1, 1, 0, 0, 0]
GOLDEN_CUTOUT = [[15, 18], [22, 17], [14, 2]]
GOLDEN_DIGEST = "cbced65f135d8b8a5cb9d147c6c1243912c9f93fc2506124ca7b19bd6fd231f5"
GOLDEN_HOLDOUT = [1, 6, 8]

ALL: tuple[Augmentation, ...] = (Crop(padding=4), Flip(), Cutout(size=8))
REPOSITORY = Path(__file__).parent.parent.parent


def make(
    count: int = 100,
    batch_size: int = 24,
    seed: int = 3,
    augment: Sequence[Augmentation] = ALL,
    size: tuple[int, int] = (32, 32),
) -> TrainingPlan:
    return TrainingPlan(np.arange(count), batch_size, seed, augment, size)


def same(one: Batch, other: Batch) -> bool:
    return (
        one.valid == other.valid
        and np.array_equal(one.indices, other.indices)
        and one.draws.keys() == other.draws.keys()
        and all(np.array_equal(one.draws[name], other.draws[name]) for name in one.draws)
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """The slices of all ranks as one batch."""
    draws = {
        name: np.concatenate([batch.draws[name] for batch in batches]) for name in batches[0].draws
    }
    indices = np.concatenate([batch.indices for batch in batches])
    return Batch(indices, draws, sum(batch.valid for batch in batches))


def is_uniform(counts: NDArray[np.int64]) -> bool:
    """Pearson's chi-square, with room for four standard deviations of the statistic."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return bool(abs(statistic - freedom) < 4 * np.sqrt(2 * freedom))


# Purity


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    steps = range(3 * make().steps_per_epoch)
    in_order = make()
    expected = [in_order.batch(step) for step in steps]
    shuffled = make()
    for step in np.random.default_rng(0).permutation(np.repeat(steps, 2)):
        assert same(shuffled.batch(int(step)), expected[step])


def test_a_batch_is_the_same_in_a_fresh_plan_started_in_the_middle() -> None:
    assert same(make().batch(1_000_003), make().batch(1_000_003))


def test_a_plan_survives_pickling_before_and_after_use() -> None:
    plan = make()
    fresh = pickle.loads(pickle.dumps(plan))  # noqa: S301 - our own object
    expected = plan.batch(7)
    used = pickle.loads(pickle.dumps(plan))  # noqa: S301
    assert same(fresh.batch(7), expected)
    assert same(used.batch(7), expected)
    assert same(used.batch(9), plan.batch(9))


def test_another_process_plans_the_same_batches() -> None:
    script = (
        "from tests.data.test_plan import digest, make\n"
        "print(digest(make()), make().fingerprint())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert found.stdout.split() == [digest(make()), make().fingerprint()]


def digest(plan: Plan) -> str:
    content = hashlib.sha256()
    for step in (0, 5, 1234):
        batch = plan.batch(step)
        content.update(batch.indices.tobytes())
        for values in batch.draws.values():
            content.update(values.tobytes())
    return content.hexdigest()


def test_the_batches_of_a_seed_never_change() -> None:
    """An update of numpy or of the plan that alters batches would break every resumed run.

    Whoever means to alter them raises `_PLAN_VERSION` and pins the new numbers.
    """
    augment = (Crop(padding=4, mode="reflect"), Flip(mode="alternating"), Cutout(size=8))
    batch = make(augment=augment).batch(6)
    assert batch.indices[:6].tolist() == GOLDEN_INDICES
    assert batch.draws["crop"][:3].tolist() == GOLDEN_CROP
    assert batch.draws["flip"][:8].tolist() == GOLDEN_ALTERNATING
    assert batch.draws["cutout"][:3].tolist() == GOLDEN_CUTOUT
    assert make().batch(6).draws["flip"][:8].tolist() == GOLDEN_RANDOM
    assert digest(make(augment=augment)) == GOLDEN_DIGEST
    assert holdout(10, 3)[1].tolist() == GOLDEN_HOLDOUT


def test_the_random_words_are_those_of_the_philox_paper() -> None:
    name = int.from_bytes(hashlib.blake2b(b"order", digest_size=8).digest(), "little")
    blocks = [philox((block, 0, 0, 2), (2**63 - 1, name)) for block in (1, 2)]  # numpy's first is 1
    expected = [*blocks[0], *blocks[1]]
    assert random_words(seed=2**63 - 1, stream="order", epoch=2, count=8).tolist() == expected
    assert random_words(seed=2**63 - 1, stream="order", epoch=2, count=3).tolist() == expected[:3]


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x64-10, written from the paper."""
    mask = 2**64 - 1
    for _ in range(10):
        left, right = counter[0] * 0xD2E7470EE14C6C93, counter[2] * 0xCA5A826395121157
        counter = (
            (right >> 64) ^ counter[1] ^ key[0],
            right & mask,
            (left >> 64) ^ counter[3] ^ key[1],
            left & mask,
        )
        key = ((key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask)
    return counter


# Ranks


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 8, 24])
def test_the_slices_of_all_ranks_are_the_global_batch(world: int) -> None:
    plan = make()
    for step in (0, 3, 4, 11):
        slices = [plan.batch(step, Shard(rank, world)) for rank in range(world)]
        assert same(joined(slices), plan.batch(step))
        assert {len(part.indices) for part in slices} == {24 // world}


def test_a_batch_that_has_no_equal_slices_is_refused() -> None:
    with pytest.raises(ValueError, match="24 has no 5 equal slices"):
        make().batch(0, Shard(0, 5))


@pytest.mark.parametrize(("rank", "world"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_is_one_of_its_world(rank: int, world: int) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        Shard(rank, world)


# Order


def test_an_epoch_shows_no_picture_twice_and_drops_the_short_batch() -> None:
    plan = make(count=100, batch_size=24)
    assert plan.steps_per_epoch == 4
    for epoch in range(5):
        batches = [plan.batch(epoch * 4 + step) for step in range(4)]
        seen = np.concatenate([batch.indices for batch in batches])
        assert len(seen) == len(set(seen.tolist())) == 96
        assert set(seen.tolist()) <= set(range(100))
        assert [batch.valid for batch in batches] == [24] * 4


def test_every_epoch_has_an_order_and_draws_of_its_own() -> None:
    plan = make()
    epochs = [plan.epoch(epoch) for epoch in range(6)]
    for one, other in itertools.combinations(epochs, 2):
        assert not np.array_equal(one.indices, other.indices)
        for name in one.draws:
            assert not np.array_equal(one.draws[name], other.draws[name])


def test_what_an_epoch_drops_another_one_shows() -> None:
    plan = make(count=100, batch_size=60)
    dropped = [set(range(100)) - set(plan.epoch(epoch).indices.tolist()) for epoch in range(20)]
    assert not set.intersection(*dropped)


def test_only_the_given_pictures_are_drawn() -> None:
    pictures = np.array([3, 5, 8, 13, 21, 34, 55, 89])
    plan = TrainingPlan(pictures, 8, seed=0, augment=ALL, size=(32, 32))
    assert sorted(plan.batch(5).indices.tolist()) == pictures.tolist()


def test_every_picture_comes_first_equally_often() -> None:
    counts = np.zeros(20, dtype=np.int64)
    for epoch in range(4000):
        counts[permutation(5, "order", epoch, 20)[0]] += 1
    assert is_uniform(counts)


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 1000])
def test_a_permutation_holds_every_position_once(count: int) -> None:
    assert sorted(permutation(0, "order", 0, count).tolist()) == list(range(count))


@pytest.mark.parametrize("batch_size", [0, 101])
def test_a_batch_larger_than_the_set_is_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match="cannot be drawn from 100"):
        make(count=100, batch_size=batch_size)


# Draws


def test_the_seed_changes_the_order_and_every_draw() -> None:
    one, other = make(seed=3).batch(0), make(seed=4).batch(0)
    assert not np.array_equal(one.indices, other.indices)
    for name in one.draws:
        assert not np.array_equal(one.draws[name], other.draws[name])


def test_alternating_flips_have_first_sides_that_the_seed_decides() -> None:
    sides = []
    for seed in (3, 4):
        epoch = make(seed=seed, augment=(Flip(mode="alternating"),), batch_size=100).epoch(0)
        sides.append(epoch.draws["flip"][np.argsort(epoch.indices)])
    assert not np.array_equal(sides[0], sides[1])


def test_a_large_seed_is_not_cut_short() -> None:
    assert not same(make(seed=2**63 - 1).batch(0), make(seed=2**31 - 1).batch(0))
    assert not same(make(seed=2**32).batch(0), make(seed=0).batch(0))


@pytest.mark.parametrize(
    "kept", [ALL[:1], ALL[1:2], ALL[2:], ()], ids=["crop", "flip", "cutout", "none"]
)
def test_an_augmentation_does_not_change_the_order_or_the_draws_of_others(
    kept: tuple[Augmentation, ...],
) -> None:
    whole, alone = make(augment=ALL).batch(6), make(augment=kept).batch(6)
    assert np.array_equal(whole.indices, alone.indices)
    assert list(alone.draws) == [entry.name for entry in kept]
    for name, values in alone.draws.items():
        assert np.array_equal(values, whole.draws[name])


def test_two_epochs_in_a_row_show_both_sides_of_every_picture() -> None:
    plan = make(count=101, batch_size=101, augment=(Flip(mode="alternating"),))
    sides = []
    for epoch in range(4):
        whole = plan.epoch(epoch)
        sides.append(whole.draws["flip"][np.argsort(whole.indices)])
    for one, other in itertools.pairwise(sides):
        assert np.array_equal(one ^ 1, other)
    assert 20 < sides[0].sum() < 81  # and the first sides are mixed


def test_a_first_side_belongs_to_the_picture_and_not_to_the_set_around_it() -> None:
    augment = (Flip(mode="alternating"),)
    whole = make(count=100, batch_size=100, augment=augment).epoch(0)
    sides = dict(zip(whole.indices.tolist(), whole.draws["flip"].tolist(), strict=True))
    part = TrainingPlan(np.arange(10, 60), 25, seed=3, augment=augment, size=(32, 32)).epoch(0)
    for index, side in zip(part.indices.tolist(), part.draws["flip"].tolist(), strict=True):
        assert sides[index] == side


def test_crops_reach_every_offset_equally_often_and_no_other() -> None:
    corners = make(50_000, 50_000, augment=(Crop(padding=4),)).epoch(0).draws["crop"]
    assert corners.shape == (50_000, 2)
    assert (corners.min(), corners.max()) == (0, 8)
    assert is_uniform(np.bincount(corners[:, 0] * 9 + corners[:, 1], minlength=81))


def test_flips_are_fair() -> None:
    for mode in ("random", "alternating"):
        sides = make(50_000, 50_000, augment=(Flip(mode=mode),)).epoch(0).draws["flip"]
        assert set(sides.tolist()) == {0, 1}
        assert is_uniform(np.bincount(sides))


def test_a_random_flip_does_not_remember_the_last_epoch() -> None:
    plan = make(20_000, 20_000, augment=(Flip(),))
    sides = []
    for epoch in (0, 1):
        whole = plan.epoch(epoch)
        sides.append(whole.draws["flip"][np.argsort(whole.indices)])
    assert is_uniform(np.bincount(sides[0] * 2 + sides[1], minlength=4))


def test_cutouts_are_centred_on_every_pixel_equally_often_and_on_no_other() -> None:
    plan = make(50_000, 50_000, augment=(Cutout(size=8),), size=(8, 12))
    centres = plan.epoch(0).draws["cutout"]
    assert centres.shape == (50_000, 2)
    assert centres.min(axis=0).tolist() == [0, 0]
    assert centres.max(axis=0).tolist() == [7, 11]
    assert is_uniform(np.bincount(centres[:, 0] * 12 + centres[:, 1], minlength=96))


def test_draws_are_small_integers_as_the_loaders_expect() -> None:
    for values in make().batch(0).draws.values():
        assert values.dtype == np.int32
    assert make().batch(0).indices.dtype == np.int64


def test_words_are_mapped_to_the_whole_range_and_not_beyond() -> None:
    words = np.array([0, 2**64 - 1, 2**63, 2**63 - 1], dtype=np.uint64)
    for bound in (1, 2, 9, 50_000, 2**31 - 1):
        assert random_integers(words, bound).tolist()[:2] == [0, bound - 1]
    assert random_integers(words, 2).tolist() == [0, 1, 1, 0]


# Fingerprint


def test_the_fingerprint_changes_with_every_setting_that_changes_a_batch() -> None:
    base = (Crop(padding=4), Flip(), Cutout(size=8))
    plans = [
        make(augment=base),
        make(augment=base, count=99),
        make(augment=base, batch_size=25),
        make(augment=base, seed=4),
        make(augment=base, size=(32, 33)),
        make(augment=base[1:]),
        make(augment=base[:2]),
        make(augment=()),
        make(augment=(Crop(padding=5), *base[1:])),
        make(augment=(Crop(padding=4, mode="reflect"), *base[1:])),
        make(augment=(base[0], Flip(mode="alternating"), base[2])),
        make(augment=(*base[:2], Cutout(size=9))),
        TrainingPlan(np.arange(100)[::-1].copy(), 24, 3, base, (32, 32)),
    ]
    assert len({plan.fingerprint() for plan in plans}) == len(plans)


def test_a_version_of_one_augmentation_leaves_other_fingerprints_alone() -> None:
    """Or runs that see the same batches as before could not go on."""
    augment = (Crop(padding=4), Flip(), Cutout(size=8))
    assert make(augment=augment).fingerprint() == "eb1b973eb1e61816"


def test_equal_settings_have_equal_fingerprints_whatever_was_used() -> None:
    used = make()
    used.batch(17)
    assert used.fingerprint() == make().fingerprint()


# The held-out pictures


@pytest.mark.parametrize(("count", "held_out"), [(100, 0), (100, 1), (100, 37), (100, 99), (7, 3)])
def test_the_two_parts_are_disjoint_whole_and_ascending(count: int, held_out: int) -> None:
    training, validation = holdout(count, held_out)
    assert (len(training), len(validation)) == (count - held_out, held_out)
    assert sorted([*training.tolist(), *validation.tolist()]) == list(range(count))
    for part in (training, validation):
        assert part.tolist() == sorted(part.tolist())


def test_the_held_out_pictures_are_spread_over_the_set() -> None:
    _, validation = holdout(50_000, 5000)
    assert is_uniform(np.bincount(validation // 5000, minlength=10))


# Evaluation


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("count", "batch_size"), [(100, 30), (100, 100), (7, 1000), (1, 8)])
def test_a_pass_counts_every_picture_once_on_any_number_of_ranks(
    count: int, batch_size: int, world: int
) -> None:
    pictures = np.arange(50, 50 + count)
    plan = EvaluationPlan(pictures, batch_size, world)
    seen: list[int] = []
    for step in range(plan.steps_per_epoch):
        slices = [plan.batch(step, Shard(rank, world)) for rank in range(world)]
        assert {len(part.indices) for part in slices} == {plan.batch_size // world}
        for part in slices:
            seen += part.indices[: part.valid].tolist()
    assert seen == pictures.tolist()


def test_the_last_batch_of_a_pass_is_padded_with_what_does_not_count() -> None:
    plan = EvaluationPlan(np.arange(5, 15), 4)
    last = plan.batch(2)
    assert plan.steps_per_epoch == 3
    assert last.indices.tolist() == [13, 14, 5, 5]
    assert last.valid == 2
    assert [plan.batch(step).valid for step in range(3)] == [4, 4, 2]


def test_a_rank_may_have_nothing_that_counts() -> None:
    plan = EvaluationPlan(np.arange(7), 6, world=3)
    assert [plan.batch(1, Shard(rank, 3)).valid for rank in range(3)] == [1, 0, 0]


@pytest.mark.parametrize(("count", "world", "expected"), [(100, 1, 30), (100, 4, 32), (7, 2, 8)])
def test_an_evaluation_batch_is_rounded_up_to_equal_slices(
    count: int, world: int, expected: int
) -> None:
    assert EvaluationPlan(np.arange(count), 30, world).batch_size == expected


def test_every_pass_is_the_same_and_nothing_is_drawn() -> None:
    plan = EvaluationPlan(np.arange(10), 4)
    assert np.array_equal(plan.batch(1).indices, plan.batch(4).indices)
    assert plan.batch(1).draws == {}
