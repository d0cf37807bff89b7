"""Run on every rank by `test_accumulation`: train some steps, whole and in parts.

Arguments: the file that the main rank writes its findings to.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from fasttrain.config import SGD, Train
from fasttrain.data.loader import Pictures
from fasttrain.runtime import Runtime
from fasttrain.training import optim
from fasttrain.training.step import TrainingStep
from tests.networks import small_network

BATCH, STEPS = 24, 4
FEW_BYTES = 256  # of gradients that are summed first; torch cuts its graphs there, too


def batch(step: int, rank: int, world: int) -> Pictures:
    """This rank's slice of a global batch."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 5, (BATCH,), generator=generator)
    share = BATCH // world
    rows = slice(rank * share, (rank + 1) * share)
    images = images[rows].contiguous(memory_format=torch.channels_last)
    return Pictures(images, labels[rows], share)


def train(runtime: Runtime, settings: Train) -> tuple[Tensor, int]:
    """Return all weights after some steps, and how many reductions the last of them took."""
    model = small_network()
    step = TrainingStep(model, optim.build(SGD(lr=0.2), model), runtime, settings, seed=0)
    step(0, batch(0, runtime.rank, runtime.world), 1.0)
    step(1, batch(1, runtime.rank, runtime.world), 1.0)  # now nothing is to compile any more
    with (
        torch.compiler.set_stance("fail_on_recompile"),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile,
    ):
        for at in range(2, STEPS):
            step(at, batch(at, runtime.rank, runtime.world), 1.0)
    reductions = sum(event.name == "gloo:all_reduce" for event in profile.events())
    weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    return weights, reductions // (STEPS - 2)


def goes_on_as_it_was(runtime: Runtime, settings: Train) -> bool:
    """Whether the next step is the same to the bit by ranks that have just started."""
    ends, kept = [], {}
    for first in (0, STEPS - 1):
        model = small_network(widths=(64, 64))
        model.load_state_dict(kept or model.state_dict())
        plain = SGD(lr=0.2, momentum=0)  # remembers nothing
        step = TrainingStep(model, optim.build(plain, model), runtime, settings, seed=0)
        step.warm_up(first, batch(first, runtime.rank, runtime.world))
        for at in range(first, STEPS):
            kept = {name: value.clone() for name, value in model.state_dict().items()}
            step(at, batch(at, runtime.rank, runtime.world), 1.0)
        ends.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    return torch.equal(*ends)


def main() -> None:
    torch.compile = partial(torch.compile, backend="eager")  # traces and guards, makes no code
    found: dict[str, object] = {}
    settings = Train(device="cpu", precision="fp32", compile=True, clip_norm=0.5)
    runtime = Runtime(settings)
    usual, dist._DEFAULT_FIRST_BUCKET_BYTES = dist._DEFAULT_FIRST_BUCKET_BYTES, FEW_BYTES
    for parts in (1, 3):
        weights, reductions = train(runtime, settings.model_copy(update={"accumulate": parts}))
        everywhere = [torch.empty_like(weights) for _ in range(runtime.world)]
        if runtime.world > 1:
            dist.all_gather(everywhere, weights)
            assert all(torch.equal(each, weights) for each in everywhere)
        found[str(parts)] = {"weights": weights.tolist(), "reductions": reductions}
    dist._DEFAULT_FIRST_BUCKET_BYTES = usual
    found["goes on"] = goes_on_as_it_was(runtime, settings)
    if runtime.is_main:
        Path(sys.argv[1]).write_text(json.dumps(found))
    if runtime.world > 1:
        dist.barrier()
    runtime.close()
    # The profiler and gloo sometimes abort while the interpreter is taken down; all is written.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
