"""A small trained run, and its data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fasttrain.config import Config
from fasttrain.data import sources
from fasttrain.data.store import Store
from fasttrain.training.run import run
from tests.pictures import make_pictures, write_folder

PICTURES = make_pictures(60, 30)


@dataclass(frozen=True)
class Example:
    """A run, its configuration, its pictures as files and as a store."""

    path: Path
    config: Config
    pictures: Path
    store: Store

    def copy(self, to: Path, **left_out: bool) -> Path:
        """A copy that may be spoilt."""
        shutil.copytree(self.path, to)
        if left_out.get("data"):
            (to / "data.json").unlink()
        return to

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "result.json").read_text()))


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    home = tmp_path_factory.mktemp("example")
    pictures = write_folder(home / "pictures", PICTURES)
    data = {"dataset": "folder", "path": str(pictures), "batch_size": 10, "validation": 20}
    train = {"epochs": 3, "device": "cpu", "precision": "fp32", "compile": False, "ema": {}}
    model = {"family": "cnn", "widths": [8, 16], "norm": "batch"}
    tree = {"data": data, "model": model, "train": train, "optim": {"lr": 0.02}}
    config = Config.model_validate(tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTTRAIN_CACHE", str(home / "cache"))
        run(config, home / "run")
        store = sources.open_dataset(config.data)
    yield Example(home / "run", config, pictures, store)
