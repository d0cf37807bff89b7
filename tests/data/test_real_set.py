"""The real CIFAR-10, in whatever form `FASTTRAIN_DATA` has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain.config import Config, Crop, Data, Flip
from fasttrain.data import cifar
from fasttrain.data.loader import ResolvedLoader
from fasttrain.data.sources import open_dataset
from fasttrain.data.store import Store
from fasttrain.runtime import Runtime
from fasttrain.training import parts

# Of the published training set, in grey levels: all 51 million values of it.
MEAN = (125.30691805, 122.95039414, 113.86538318)


@pytest.fixture
def store(real_set: Path) -> Store:
    return open_dataset(Data(path=real_set))


def test_it_is_the_published_set(store: Store) -> None:
    assert store.classes == cifar.CLASSES["cifar10"]
    for split, count in ((store.train, 50_000), (store.test, 10_000)):
        assert split.images.shape == (count, 32, 32, 3)
        assert np.bincount(split.labels).tolist() == [count // 10] * 10
    np.testing.assert_allclose(store.mean, MEAN, rtol=1e-9)


@pytest.mark.parametrize("loader", ["resident", "dali"])
def test_loaders_deliver_it_as_it_is_normalised_and_changed(
    loader: ResolvedLoader, store: Store, runtime: Runtime
) -> None:
    if loader == "dali":
        pytest.importorskip("nvidia.dali")
    batches = {}
    names: tuple[ResolvedLoader, ...] = (loader, "reference")
    for name in names:
        config = Config(
            data=Data(
                loader=name,
                batch_size=256,
                augment=(Crop(padding=4), Flip()),
                workers=0 if name == "reference" else 2,
            )
        )
        plan = parts.training_plan(config, store)
        delivers, _ = parts.training_loader(config, store, plan, runtime)
        batches[name] = list(delivers.batches(40, 42))
        delivers.close()
    for one, other in zip(*batches.values(), strict=True):
        assert torch.equal(one.labels, other.labels)
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=1e-6)
