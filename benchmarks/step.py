"""One training step on a batch that stays the same, made faster one thing at a time.

The variants take turns; in all of them the process keeps the memory it frees, as in a run
(`memory` measures what that brings). Achieved FLOP/s are three times the network's forward
multiply-adds, twice (`fasttrain model` counts them), over the measured time; they are compared with
what this machine does in a plain matrix product, measured in the same run.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import energy
from benchmarks.record import Outcome
from benchmarks.workbench import Workbench, assemble, enough_steps
from fasttrain.config import Config, load
from fasttrain.models.summary import summarize
from fasttrain.training import parts
from fasttrain.training.optim import Optimizers

_MATRIX = 4096

EAGER, FUSED, RECORDED = "eager, fp32", "fused optimiser", "CUDA graphs"
VARIANTS: dict[str, dict[str, Any]] = {
    EAGER: {"precision": "fp32", "compile": False, "channels_last": False},
    "channels last": {"precision": "fp32", "compile": False, "channels_last": True},
    "bf16": {"precision": "bf16", "compile": False, "channels_last": True},
    "compiled": {"precision": "bf16", "compile": True, "channels_last": True},
}


def measure(config: Path, overrides: tuple[str, ...], quick: bool) -> Outcome:
    """Time every variant's step; images/s."""
    repetitions, seconds = (3, 1.0) if quick else (7, 3.0)
    base = load(config, overrides)
    variants = _variants(base)
    bench = variants[FUSED]
    pictures = bench.batch()
    # Loaders deliver channels last, which would decide the layout of the network, too.
    plain = replace(pictures, images=pictures.images.contiguous())
    batches = {name: plain if name == EAGER else pictures for name in variants}
    steps = {name: enough_steps(one, batches[name], seconds) for name, one in variants.items()}
    runs: dict[str, list[float]] = {name: [] for name in variants}
    drawn: dict[str, list[float | None]] = {name: [] for name in variants}
    for _ in range(repetitions):
        for name, variant in variants.items():
            batch = itertools.repeat(batches[name])
            variant.images_per_second(batch, 1)  # finds its memory
            before = energy.joules()
            runs[name].append(variant.images_per_second(batch, steps[name]))
            drawn[name].append(energy.between(before, energy.joules()))
    summary = summarize(base.model, len(bench.store.classes), bench.store.size)
    recipe, place = " ".join([config.stem, *overrides]), bench.runtime.device.type
    # Matrix products of fp32 go through the tensor cores there, rounded (`runtime`).
    place += " (fp32 as TF32)" * (place == "cuda")
    return Outcome(
        title=f"the step of {recipe}, each line with all above it, on {place}",
        unit="images/s",
        runs=runs,
        settings=base.model_dump(mode="json"),
        baseline=EAGER,
        details=[
            {
                "flops_per_image": summary.training_flops(1),
                "steps_a_repetition": steps,
                "batch_size": base.data.batch_size,
                "joules": drawn,
            },
            {"matrix_product_flops": matrix_rates(bench.runtime.device, repetitions)},
        ],
    )


def _variants(base: Config) -> dict[str, Workbench]:
    """All of them, each with what the ones before it have; the last is for a GPU alone."""
    base = _with(base, {"cuda_graphs": False})
    variants = {name: assemble(_with(base, words), _unfuse) for name, words in VARIANTS.items()}
    variants[FUSED] = assemble(_with(base, VARIANTS["compiled"]))
    runtime = variants[FUSED].runtime
    if runtime.device.type == "cuda" and parts.in_parts(base, runtime).accumulate == 1:
        recorded = {**VARIANTS["compiled"], "cuda_graphs": True}
        variants[RECORDED] = assemble(_with(base, recorded))
    return variants


def _with(config: Config, words: dict[str, Any]) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=words)})


def _unfuse(optimizer: Optimizers) -> None:
    """Let torch's optimisers work as they do when nothing is said."""
    for group in optimizer.groups:
        if "fused" in group:
            group["fused"] = group["foreach"] = None


def matrix_rates(device: torch.device, repetitions: int) -> dict[str, list[float]]:
    """FLOP/s of a square matrix product in fp32 and bf16."""
    rates: dict[str, list[float]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        one = torch.randn(_MATRIX, _MATRIX, device=device, dtype=dtype)
        other = one.clone()
        torch.mm(one, other)
        rates[name] = [_rate(one, other) for _ in range(repetitions)]
    return rates


def _rate(one: torch.Tensor, other: torch.Tensor) -> float:
    times = 1 if one.device.type == "cpu" else 20
    start = time.perf_counter()
    for _ in range(times):
        product = torch.mm(one, other)
    product[0, 0].item()  # waits for the device
    return times * 2 * _MATRIX**3 / (time.perf_counter() - start)


def shares(outcome: Outcome) -> list[str]:
    """For each variant its FLOP/s and the share of the matrix product's."""
    costs, machine = outcome.details or [{}, {}]
    lines = []
    for name, figures in outcome.runs.items():
        precision = "fp32" if name in (EAGER, "channels last") else "bf16"
        rates = sorted(machine["matrix_product_flops"][precision])
        achieved = sorted(figures)[len(figures) // 2] * costs["flops_per_image"]
        share = achieved / rates[len(rates) // 2]
        lines.append(
            f"{name}: {achieved / 1e12:.3f} TFLOP/s, {share:.0%} of {precision} products"
            + _per_joule(costs, name)
        )
    return lines


def _per_joule(costs: dict[str, Any], name: str) -> str:
    """The images that a GPU trains on with a joule, where its driver counts these."""
    drawn = [joules for joules in costs["joules"][name] if joules]
    if not drawn:
        return ""
    images = costs["steps_a_repetition"][name] * costs["batch_size"]
    return f", {images / median(drawn):,.1f} images per joule"
