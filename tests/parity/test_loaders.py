"""The same batch for the same (seed, step), whichever loader executes the plan."""

from __future__ import annotations

import itertools
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from fasttrain.config import (
    Augmentation,
    ColorJitter,
    Crop,
    CutMix,
    Cutout,
    Flip,
    MixUp,
    ResizedCrop,
    Rotation,
    TrivialAugment,
    VerticalFlip,
)
from fasttrain.data.augment import Transform
from fasttrain.data.loader import ResolvedLoader, make_loader
from fasttrain.data.plan import EvaluationPlan, Plan, Shard, TrainingPlan
from fasttrain.data.store import Split

LOADERS: list[ResolvedLoader] = ["dali", "resident", "reference"]
MEAN, STD = (125.3, 122.95, 113.9), (62.99, 62.1, 66.7)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
# Recipes that move and cover whole pixels: every loader delivers the same bits.
EXACT: list[tuple[Augmentation, ...]] = [
    (),
    (MixUp(),),
    (Crop(padding=4),),
    (Crop(padding=3, mode="reflect"),),
    (Flip(),),
    (Flip(mode="alternating"),),
    (Cutout(size=8),),
    (Cutout(size=5),),
    (Crop(padding=4), Flip(), Cutout(size=12)),
    (Crop(padding=2, mode="reflect"), Flip(mode="alternating"), Cutout(size=7)),
    (VerticalFlip(),),
    (Crop(padding=4), Flip(), VerticalFlip(), Cutout(size=8)),
]
# Recipes with a warp or a colour map, each of which may round a value in the middle between two
# grey levels either way, and what that can come to: a colour map amplifies what a warp rounded.
ROUNDED: list[tuple[tuple[Augmentation, ...], int]] = [
    ((Rotation(degrees=30),), 1),
    ((ResizedCrop(scale=(0.3, 1.0)),), 1),
    ((ResizedCrop(), Flip(), VerticalFlip()), 1),
    ((Crop(padding=4, mode="reflect"), Rotation(), Flip(mode="alternating"), Cutout()), 1),
    ((ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),), 1),
    ((Crop(), Flip(), ColorJitter(), Cutout()), 1),
    ((Crop(), ResizedCrop(), Rotation(), Flip(), VerticalFlip(), ColorJitter(), Cutout()), 3),
    ((TrivialAugment(),), 1),
    ((TrivialAugment(), Crop(), Flip(), Cutout()), 1),
    ((TrivialAugment(), Crop(mode="reflect"), Rotation(), Flip(), ColorJitter()), 6),
]

pytestmark = pytest.mark.usefixtures("two_threads")  # generated code shares work, too


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()  # dozens of transforms share one function: past 8 it would run eagerly


@pytest.fixture(scope="module")
def split() -> Split:
    generator = np.random.default_rng(7)
    images = generator.integers(0, 256, (90, 32, 32, 3), dtype=np.uint8)
    return Split(images, generator.integers(0, 10, 90).astype(np.int64))


def run(
    name: ResolvedLoader,
    split: Split,
    plan: Plan,
    transform: Transform,
    device: str,
    steps: range,
    compile: bool = True,  # noqa: A002 - the name torch gives it
) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    place = torch.device(device)
    loader = make_loader(name, split, plan, Shard(), transform, place, workers=0, compile=compile)
    batches = [
        (pictures.images.cpu(), pictures.labels.cpu(), pictures.valid)
        for pictures in loader.batches(steps.start, steps.stop)
    ]
    loader.close()
    return batches


def oracle(split: Split, plan: Plan, transform: Transform, step: int) -> torch.Tensor:
    batch = plan.batch(step)
    draws = {name: torch.from_numpy(values) for name, values in batch.draws.items()}
    return transform.apply(torch.from_numpy(split.images[batch.indices]), draws)


def describe(recipe: tuple[Augmentation, ...]) -> str:
    return "+".join(str(entry).replace(" ", ",") for entry in recipe) or "plain"


def brief(value: tuple[Augmentation, ...] | int) -> str:
    return str(value) if isinstance(value, int) else "+".join(entry.name for entry in value)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", EXACT, ids=describe)
@pytest.mark.parametrize("name", LOADERS)
def test_every_loader_delivers_the_planned_batch(
    name: ResolvedLoader, recipe: tuple[Augmentation, ...], device: str, split: Split
) -> None:
    plan = TrainingPlan(np.arange(90), 40, seed=11, augment=recipe, size=(32, 32))
    steps = range(1, 5)  # from the middle of the first epoch into the third
    for raw in (True, False):
        transform = Transform(recipe, MEAN, STD, raw)
        for step, (images, labels, valid) in zip(
            steps, run(name, split, plan, transform, device, steps), strict=True
        ):
            expected = oracle(split, plan, transform, step)
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert valid == 40
            assert labels.tolist() == split.labels[plan.batch(step).indices].tolist()
            if raw:
                assert torch.equal(images, expected)
            else:
                assert images.dtype == torch.float32
                assert (images - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("recipe", "tolerance"), ROUNDED, ids=brief)
@pytest.mark.parametrize("name", LOADERS)
def test_loaders_round_warps_and_colours_alike(
    name: ResolvedLoader,
    recipe: tuple[Augmentation, ...],
    tolerance: int,
    device: str,
    split: Split,
) -> None:
    """To so many grey levels, and that in few places; compiled and normalised ones likewise."""
    plan = TrainingPlan(np.arange(90), 40, seed=11, augment=recipe, size=(32, 32))
    steps = range(1, 3)  # from the first epoch into the second
    raw, normal = Transform(recipe, MEAN, STD, raw=True), Transform(recipe, MEAN, STD)
    delivered = zip(
        run(name, split, plan, raw, device, steps, compile=False),
        run(name, split, plan, normal, device, steps),
        strict=True,
    )
    for step, ((levels, _, _), (images, _, _)) in zip(steps, delivered, strict=True):
        shown = images * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
        assert (shown - shown.round()).abs().max() <= 1e-3
        for found in (levels, shown.round()):
            off = (found - oracle(split, plan, raw, step).float()).abs()
            assert off.max() <= tolerance
            assert (off > 0).float().mean() < 1e-3
            assert found.is_contiguous(memory_format=torch.channels_last)


class Watched(TrainingPlan):
    """Remembers the last batch that was asked for."""

    last = -1

    def locate(self, step: int, shard: Shard) -> tuple[int, slice, int]:
        self.last = max(self.last, step)
        return super().locate(step, shard)


@pytest.mark.parametrize("device", DEVICES)
def test_dali_skips_an_operation_that_no_picture_of_a_batch_needs(
    device: str, split: Split
) -> None:
    """A batch of one needs each of them, or none, in turn."""
    recipe = (TrivialAugment(), Crop(padding=4), Flip(), Cutout(size=8))
    plan = TrainingPlan(np.arange(90), 1, seed=11, augment=recipe, size=(32, 32))
    transform, steps = Transform(recipe, MEAN, STD, raw=True), range(60)
    drawn = {int(plan.batch(step).draws["trivial_augment"][0, 0]) for step in steps}
    assert drawn == set(range(14))
    found = run("dali", split, plan, transform, device, steps)
    for step, (levels, _, _) in zip(steps, found, strict=True):
        off = (levels.int() - oracle(split, plan, transform, step).int()).abs()
        assert off.max() <= 1
        assert (off > 0).float().mean() < 1e-2


@pytest.mark.parametrize("name", ["resident", "dali"])
def test_no_more_batches_lie_ready_than_is_said(name: ResolvedLoader, split: Split) -> None:
    """A benchmark relies on it; the reference loader's plan is asked in other processes."""
    plan = Watched(np.arange(90), 10, seed=11, augment=(Flip(),), size=(32, 32))
    loader = make_loader(
        name, split, plan, Shard(), Transform((Flip(),), MEAN, STD), torch.device("cpu")
    )
    batches = loader.batches(0, 9)
    for step in range(4):
        next(batches)
        time.sleep(0.1)
        assert plan.last == step + loader.ahead
    batches.close()
    loader.close()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LOADERS)
def test_an_evaluation_pass_is_whole_ordered_and_repeatable(
    name: ResolvedLoader, device: str, split: Split
) -> None:
    split = Split(split.images[:, 4:28].copy(), split.labels)  # 24 x 32 pixels
    plan = EvaluationPlan(np.arange(5, 90), 40)
    transform = Transform((), MEAN, STD, raw=True)
    place = torch.device(device)
    loader = make_loader(name, split, plan, Shard(), transform, place, workers=0)
    for _ in range(2):
        seen = [
            picture
            for pictures in loader.batches(0, plan.steps_per_epoch)
            for picture in pictures.images[: pictures.valid].permute(0, 2, 3, 1).cpu()
        ]
        assert np.array_equal(torch.stack(seen).numpy(), split.images[5:])
    loader.close()


@pytest.mark.parametrize("name", LOADERS)
def test_an_abandoned_pass_does_not_leak_into_the_next(name: ResolvedLoader, split: Split) -> None:
    plan = TrainingPlan(np.arange(90), 30, seed=2, augment=(Flip(),), size=(32, 32))
    transform = Transform((Flip(),), MEAN, STD, raw=True)
    loader = make_loader(
        name, split, plan, Shard(), transform, torch.device("cpu"), workers=0, compile=False
    )
    list(itertools.islice(loader.batches(0, 9), 2))
    for step, pictures in zip(range(4, 7), loader.batches(4, 7), strict=True):
        assert torch.equal(pictures.images, oracle(split, plan, transform, step))
    loader.close()


@pytest.mark.parametrize("name", LOADERS)
def test_a_pass_that_was_overtaken_delivers_what_is_right_or_nothing(
    name: ResolvedLoader, split: Split
) -> None:
    plan = TrainingPlan(np.arange(90), 30, seed=2, augment=(Flip(),), size=(32, 32))
    transform = Transform((Flip(),), MEAN, STD, raw=True)
    loader = make_loader(
        name, split, plan, Shard(), transform, torch.device("cpu"), workers=0, compile=False
    )
    old, new = loader.batches(0, 9), loader.batches(4, 9)
    for batches, step in ((old, 0), (new, 4)):
        assert torch.equal(next(batches).images, oracle(split, plan, transform, step))
    with nullcontext() if name != "dali" else pytest.raises(RuntimeError, match="another pass"):
        assert torch.equal(next(old).images, oracle(split, plan, transform, 1))
    assert torch.equal(next(new).images, oracle(split, plan, transform, 5))
    for batches in (old, new):
        batches.close()
    for _ in range(2):
        loader.close()


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("world", [2, 3])
def test_the_slices_of_all_ranks_are_the_global_batch(
    name: ResolvedLoader, world: int, split: Split
) -> None:
    recipe = (Crop(padding=4), Flip(), Cutout(size=8))
    plan = TrainingPlan(np.arange(90), 30, seed=5, augment=recipe, size=(32, 32))
    transform = Transform(recipe, MEAN, STD, raw=True)
    slices = []
    for rank in range(world):
        loader = make_loader(
            name,
            split,
            plan,
            Shard(rank, world),
            transform,
            torch.device("cpu"),
            workers=0,
            compile=False,
        )
        slices.append(next(iter(loader.batches(4, 5))).images)
        loader.close()
    assert torch.equal(torch.cat(slices), oracle(split, plan, transform, 4))


@pytest.mark.parametrize("name", LOADERS)
def test_every_loader_delivers_how_pictures_are_mixed(name: ResolvedLoader, split: Split) -> None:
    recipe = (Flip(), MixUp(), CutMix())
    plan = TrainingPlan(np.arange(90), 30, seed=5, augment=recipe, size=(32, 32))
    transform = Transform(recipe, MEAN, STD)
    loader = make_loader(
        name, split, plan, Shard(1, 3), transform, torch.device("cpu"), workers=0, compile=False
    )
    for step, pictures in zip(range(2, 5), loader.batches(2, 5), strict=True):
        assert pictures.mixing is not None
        assert np.array_equal(pictures.mixing, plan.batch(step, Shard(1, 3)).draws["mixing"])
    loader.close()
