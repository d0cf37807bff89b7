"""Ranks under the real launcher share the batches that one process trains on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasttrain.config import load
from tests.distributed import slices
from tests.distributed.launching import on_ranks
from tests.pictures import make_pictures, write_zip

CONFIG = """
seed: 3
data:
  dataset: folder
  path: {path}
  batch_size: 30
  validation: 10
  workers: 1
  augment: [crop, flip, {{name: cutout, size: 5}}]
train: {{precision: fp32, compile: false, device: cpu}}
"""
FIRST, LAST = 6, 11  # 9 steps in an epoch: from the middle of the first into the second


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.long), 3])
def test_the_slices_of_all_ranks_are_the_batches_of_one_process(world: int, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    pictures = write_zip(tmp_path / "pictures.zip", make_pictures(train=300, test=10))
    config.write_text(CONFIG.format(path=pictures))

    slices.write(load(config), FIRST, LAST, tmp_path)
    ended = on_ranks(world, slices.__file__, config, FIRST, LAST, tmp_path, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr

    for name in slices.LOADERS:
        whole = np.load(tmp_path / f"{name}-0-of-1.npz")
        ranks = [np.load(tmp_path / f"{name}-{rank}-of-{world}.npz") for rank in range(world)]
        assert whole["images"].dtype == np.uint8
        assert whole["images"].shape == (LAST - FIRST, 30, 3, 16, 16)
        for what in ("images", "labels", "indices"):
            slices_of_all = np.concatenate([rank[what] for rank in ranks], axis=1)
            assert np.array_equal(slices_of_all, whole[what]), (name, what)
