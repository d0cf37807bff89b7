"""Every augmentation on the real CIFAR-10: how alike the loaders are, how fast, what a plan costs.

Alike is measured on the first batch of 512 pictures, in grey levels of 255 and before they are
normalised, against the oracle in `data.augment`. The loaders take turns and deliver normalised
batches on the device; the reference works in one process. Mix-up and CutMix happen later, inside
the training step: here they cost only what the plan draws.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.loaders import BATCH, OURS, WORKERS, batches_per_second, planned
from benchmarks.record import Outcome, put
from benchmarks.workbench import installed
from fasttrain.config import (
    Augmentation,
    ColorJitter,
    Crop,
    CutMix,
    Cutout,
    Data,
    Flip,
    MixUp,
    ResizedCrop,
    Rotation,
    TrivialAugment,
    VerticalFlip,
)
from fasttrain.data.augment import Transform
from fasttrain.data.loader import ResolvedLoader, as_tensors, make_loader
from fasttrain.data.plan import Plan, Shard, TrainingPlan
from fasttrain.data.sources import open_dataset
from fasttrain.data.store import Store

RECIPES: dict[str, tuple[Augmentation, ...]] = {
    "none": (),
    "crop": (Crop(),),
    "flip": (Flip(),),
    "vertical flip": (VerticalFlip(),),
    "cut-out": (Cutout(),),
    "crop, flip, cut-out": (Crop(), Flip(), Cutout()),
    "resized crop": (ResizedCrop(),),
    "rotation": (Rotation(),),
    "colour jitter": (ColorJitter(),),
    "colour jitter with hue": (ColorJitter(hue=0.1),),
    "flips, jitter, rotation, resized crop": (
        ResizedCrop(), Rotation(), Flip(), VerticalFlip(), ColorJitter(),
    ),
    "TrivialAugment": (TrivialAugment(),),
    "TrivialAugment, crop, flip, cut-out": (TrivialAugment(), Crop(), Flip(), Cutout()),
    "mix-up and CutMix": (MixUp(), CutMix()),
    "all": (
        TrivialAugment(), Crop(), ResizedCrop(), Rotation(), Flip(), VerticalFlip(),
        ColorJitter(), Cutout(), MixUp(), CutMix(),
    ),
}  # fmt: skip


def measure(quick: bool) -> Outcome:
    """Measure every recipe in turn."""
    store = open_dataset(Data())
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    repetitions, seconds = (1, 0.3) if quick else (5, 1.0)
    runs: dict[str, list[float]] = {}
    details: list[dict[str, Any]] = []
    for name, recipe in RECIPES.items():
        torch.compiler.reset()  # many recipes share one function: past 8 the compiler gives up
        plan = TrainingPlan(np.arange(len(store.train.labels)), BATCH, 0, recipe, store.size)
        details.append({"recipe": name, "plan_ms": _plan_milliseconds(plan), "off": {}})
        for loader in installed(OURS, device):
            details[-1]["off"][loader] = _off(loader, store, plan, recipe, device)
        for key, speeds in _speeds(store, plan, recipe, device, repetitions, seconds).items():
            runs[f"{name} | {key}"] = speeds
    return Outcome(
        title=f"augmentations on {device.type}: {BATCH} pictures of {store.name} a batch",
        unit="images/s",
        runs=runs,
        settings={
            "recipes": {key: [str(part) for part in value] for key, value in RECIPES.items()},
            "pictures": len(store.train.labels),
            "store": store.key,
            "batch": BATCH,
            "dali threads": WORKERS,
            "seconds a repetition": seconds,
            "repetitions": repetitions,
            "threads": torch.get_num_threads(),
            "device": device.type,
        },
        details=details,
    )


def show(outcome: Outcome) -> None:
    """Print a line for each recipe."""
    table = Table(title=outcome.title, title_justify="left")
    table.add_column("")
    table.add_column("plan of an epoch, ms", justify="right")
    details = outcome.details or []
    ours = list(details[0]["off"])
    for loader in ours:
        table.add_column(f"{loader}: largest difference", justify="right")
    for loader in ours:
        table.add_column(f"{loader}: images/s", justify="right")
    for detail in details:
        off = [f"{detail['off'][loader]['largest']:.0f}" for loader in ours]
        speeds = [median(outcome.runs[f"{detail['recipe']} | {loader}"]) for loader in ours]
        plan = f"{detail['plan_ms']:.1f}"
        table.add_row(detail["recipe"], plan, *off, *[f"{speed:,.0f}" for speed in speeds])
    put(table)


def _plan_milliseconds(plan: TrainingPlan, repetitions: int = 5) -> float:
    """How long the plan of a whole epoch takes."""
    seconds = []
    for epoch in range(repetitions):
        start = time.perf_counter()
        plan.epoch(epoch)
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds)


def _off(
    name: ResolvedLoader,
    store: Store,
    plan: Plan,
    recipe: tuple[Augmentation, ...],
    device: torch.device,
) -> dict[str, float]:
    """The largest difference from the oracle, in grey levels, and the share of values off."""
    transform = Transform(recipe, store.mean, store.std, raw=True)
    loader = make_loader(name, store.train, plan, Shard(), transform, device, workers=0)
    delivered = next(iter(loader.batches(0, 1))).images.cpu()
    loader.close()
    batch = plan.batch(0)
    stored = torch.from_numpy(store.train.images[batch.indices])
    off = (delivered.int() - transform.apply(stored, as_tensors(batch.draws)).int()).abs()
    return {"largest": float(off.max()), "share": float((off > 0).float().mean())}


def _speeds(
    store: Store,
    plan: Plan,
    recipe: tuple[Augmentation, ...],
    device: torch.device,
    repetitions: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Images/s of each loader, all timed for the same time."""
    transform = Transform(recipe, store.mean, store.std)
    loaders: dict[str, Any] = {
        name: make_loader(
            name, store.train, plan, Shard(), transform, device,
            workers=0 if name == "reference" else WORKERS,
        )
        for name in installed(OURS, device)
    }  # fmt: skip
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(repetitions):
        for name, loader in loaders.items():
            speed = batches_per_second(planned(loader), seconds, device, warm_up=2)
            speeds[name].append(BATCH * speed)
    for loader in loaders.values():
        loader.close()
    return speeds
