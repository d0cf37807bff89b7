"""Writes what the training loaders of this rank deliver; `accelerate launch` starts it.

    python slices.py CONFIG FIRST LAST FOLDER

For each loader: this rank's slices of batches FIRST to LAST - 1, as pictures of whole grey
levels, with their labels and their positions in the store. What builds a run's loader builds these,
but that it is told to stop before the pictures are normalised.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np

from fasttrain.config import Config, LoaderName, load
from fasttrain.data import sources
from fasttrain.data.augment import Transform
from fasttrain.data.plan import Shard
from fasttrain.runtime import Runtime
from fasttrain.training import parts

LOADERS: tuple[LoaderName, ...] = ("dali", "resident", "reference")


def write(config: Config, first: int, last: int, folder: Path) -> None:
    runtime = Runtime(config.train)
    store = sources.open_dataset(config.data)
    plan = parts.training_plan(config, store)
    shard = Shard(runtime.rank, runtime.world)
    for name in LOADERS:
        data = config.data.model_copy(update={"loader": name})
        chosen = config.model_copy(update={"data": data})
        with patch.object(parts, "Transform", functools.partial(Transform, raw=True)):
            loader, _ = parts.training_loader(chosen, store, plan, runtime)
        assert loader.name == name
        delivered = list(loader.batches(first, last))
        np.savez(
            folder / f"{name}-{runtime.rank}-of-{runtime.world}.npz",
            images=np.stack([pictures.images.numpy() for pictures in delivered]),
            labels=np.stack([pictures.labels.numpy() for pictures in delivered]),
            indices=np.stack([plan.batch(step, shard).indices for step in range(first, last)]),
        )
        loader.close()
    runtime.close()


if __name__ == "__main__":
    write(load(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
