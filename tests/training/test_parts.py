"""The parts of a run, and the sizes that do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fasttrain.config import Config
from fasttrain.data.store import Split, Store, obtain
from fasttrain.errors import UserError
from fasttrain.runtime import Runtime
from fasttrain.training import parts

CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        return Split(images, generator.integers(0, 3, count).astype(np.int64))

    return obtain("pets", "k", lambda: (CLASSES, {"train": split(50), "test": split(23)}), tmp_path)


def config(seed: int = 0, **data: Any) -> Config:
    settings = {"batch_size": 16, "validation": 10, "loader": "resident", **data}
    return Config.model_validate(
        {"seed": seed, "data": settings, "model": {"widths": [4]}, "train": {"device": "cpu"}}
    )


@pytest.mark.parametrize("count", [1, 3, 10, 50, 99, 1000])
def test_the_pictures_that_are_looked_at_come_from_all_over_the_set(count: int) -> None:
    """A store may be sorted by class."""
    found = parts.evenly(np.arange(100), count)
    assert min(count, 100) / 2 <= len(found) <= count
    assert found[0] == 0
    assert found[-1] >= 100 - 100 / len(found) - 1 or count == 1


@pytest.mark.parametrize("seed", [1, 2, 12345])
def test_every_seed_is_validated_on_the_same_pictures(store: Store, seed: int) -> None:
    expected = parts.split_training(config(seed=0), store)
    found = parts.split_training(config(seed=seed), store)
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)


def test_no_picture_is_both_trained_and_validated_on(store: Store) -> None:
    plan = parts.training_plan(config(batch_size=40), store)
    _, held_out = parts.split_training(config(), store)
    seen = {int(index) for epoch in range(5) for index in plan.epoch(epoch).indices}
    assert len(held_out) == 10
    assert seen == set(range(50)) - set(held_out.tolist())


def test_the_validation_split_holds_the_pictures_that_were_held_out(store: Store) -> None:
    _, held_out = parts.split_training(config(), store)
    split = parts.validation_split(config(), store)
    assert np.array_equal(split.images, store.train.images[held_out])
    assert np.array_equal(split.labels, store.train.labels[held_out])


def test_there_may_be_no_validation_split(store: Store) -> None:
    assert len(parts.validation_split(config(validation=0), store).labels) == 0
    assert len(parts.training_plan(config(validation=0), store).pictures) == 50


@pytest.mark.parametrize(("size", "parts_of_it"), [(1, 1), (4, 4)])
def test_a_batch_norm_over_one_picture_is_refused(size: int, parts_of_it: int) -> None:
    """Its last pictures may be of one pixel, which is then all that a channel has."""
    settings = config(batch_size=size).model_dump(mode="json")
    settings |= {"model": {"family": "whitened_cnn"}}
    settings["train"] |= {"accumulate": parts_of_it}
    with pytest.raises(UserError, match=rf"batch_size={size} .* one picture, .* choose {2 * size}"):
        parts.check(Config.model_validate(settings))


@pytest.mark.parametrize("validation", [50, 51])
def test_a_validation_split_that_leaves_nothing_is_refused(store: Store, validation: int) -> None:
    match = rf"^data\.validation={validation} leaves nothing of the 50 training pictures; "
    with pytest.raises(UserError, match=match):
        parts.training_plan(config(validation=validation), store)


def test_a_batch_larger_than_what_is_left_is_refused(store: Store) -> None:
    assert parts.training_plan(config(batch_size=40), store).steps_per_epoch == 1
    match = r"^data\.batch_size=41 is more than the 40 training pictures \(50 less 10 for valid"
    with pytest.raises(UserError, match=match):
        parts.training_plan(config(batch_size=41), store)


def test_a_batch_that_the_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size=16 cannot be divided among 3 processes"):
        parts.check_world(config(), 3)
    parts.check_world(config(batch_size=15), 3)


def test_a_pass_over_a_split_delivers_it_whole_and_in_order(store: Store, runtime: Runtime) -> None:
    evaluation = parts.evaluation_pass(config(), store, store.test, runtime)
    labels = [
        label
        for pictures in evaluation.loader.batches(0, evaluation.plan.steps_per_epoch)
        for label in pictures.labels[: pictures.valid].tolist()
    ]
    assert labels == store.test.labels.tolist()


@pytest.mark.parametrize(
    ("size", "count"), [((8, 8), 250), ((32, 32), 250), ((64, 48), 83), ((128, 128), 15)]
)
def test_a_pass_takes_fewer_pictures_the_larger_they_are(
    size: tuple[int, int], count: int, runtime: Runtime
) -> None:
    """Or a run whose batches fit would find no room for its evaluation."""
    split = Split(np.zeros((260, *size, 3), np.uint8), np.zeros(260, np.int64))
    store = Store("pets", Path(), CLASSES, split, split, (0, 0, 0), (1, 1, 1), "key", "digest")
    evaluation = parts.evaluation_pass(config(), store, split, runtime)
    assert evaluation.plan.batch_size == count
    evaluation.loader.close()


def test_the_model_follows_the_seed_and_has_a_logit_for_each_class(
    store: Store, runtime: Runtime
) -> None:
    one, same, other = (
        parts.build_model(config(seed=seed), store, runtime).state_dict() for seed in (0, 0, 1)
    )
    assert one["head.bias"].shape == (3,)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_all_ranks_begin_with_the_main_ones_whitening(
    store: Store, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[nn.Module] = []
    monkeypatch.setattr(runtime, "share_buffers", shared.append)
    model = parts.build_model(config(), store, runtime)
    assert [id(each) for each in shared] == [id(model)]


def test_a_margin_wider_than_the_picture_cannot_be_mirrored(store: Store) -> None:
    crop = {"name": "crop", "mode": "reflect"}
    parts.training_plan(config(augment=[{**crop, "padding": 7}]), store)
    with pytest.raises(UserError, match=r"mirrors 8 pixels.*8 x 8.*smaller padding"):
        parts.training_plan(config(augment=[{**crop, "padding": 8}]), store)


class Elsewhere:
    """A rank on some device."""

    def __init__(self, device: str, world: int) -> None:
        self.device, self.rank, self.world, self.compile = torch.device(device), 0, world, False


@pytest.mark.parametrize(
    ("device", "threads", "world", "ghost_batch", "accumulate", "expected"),
    [
        ("cpu", 2, 1, 250, "auto", 8),
        ("cpu", 2, 2, 250, "auto", 4),
        ("cpu", 2, 16, 250, "auto", 1),  # a rank has half a ghost batch
        ("cpu", 1, 1, 250, "auto", 8),  # no less than a ghost batch
        ("cpu", 8, 1, 250, "auto", 2),
        ("cpu", 64, 1, 250, "auto", 1),
        ("cpu", 2, 1, 50, "auto", 8),
        ("cpu", 2, 1, 80, "auto", 25),  # neither two nor three of them divide 25
        ("cpu", 2, 1, 2000, "auto", 1),
        ("cpu", 2, 1, None, "auto", 1),
        ("cpu", 2, 1, 250, 2, 2),
        ("cuda", 2, 1, 250, "auto", 1),
        ("cuda", 2, 1, 250, 2, 2),
    ],
)
def test_a_cpu_takes_few_ghost_batches_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    threads: int,
    world: int,
    ghost_batch: int | None,
    accumulate: int | str,
    expected: int,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = {"family": "whitened_cnn", "ghost_batch": ghost_batch}
    settings = {"data": {"batch_size": 2000}, "model": model, "train": {"accumulate": accumulate}}
    config = Config.model_validate(settings)
    parts.check_world(config, world)
    found = parts.in_parts(config, Elsewhere(device, world))
    assert found == config.train.model_copy(update={"accumulate": expected})


def test_other_networks_are_taken_whole() -> None:
    config = Config.model_validate({"train": {"accumulate": "auto"}})
    assert parts.in_parts(config, Elsewhere("cpu", 1)).accumulate == 1


@pytest.mark.parametrize(("accumulate", "piece"), [("auto", 64), (2, 32)])
def test_ghost_batches_that_are_cut_off_are_refused(accumulate: int | str, piece: int) -> None:
    model = {"family": "whitened_cnn", "ghost_batch": 24}
    settings = {"data": {"batch_size": 64}, "model": model, "train": {"accumulate": accumulate}}
    config = Config.model_validate(settings)
    with pytest.raises(UserError, match=rf"ghost_batch=24 does not divide the {piece} pictures"):
        parts.check_world(config, 1)
