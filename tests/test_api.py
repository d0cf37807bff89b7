"""What `import fasttrain` offers does what it says, in a user's own script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fasttrain
from fasttrain import api
from fasttrain.data import sources
from fasttrain.data.augment import Transform
from fasttrain.data.loader import as_tensors
from fasttrain.training import parts

TINY = """
data: {dataset: shapes, batch_size: 500, validation: 1000, augment: [flip]}
model: {family: cnn, widths: [4, 8]}
train: {epochs: 1, device: cpu, precision: fp32, compile: false}
"""
SCRIPT = """
import torch
import fasttrain

config = fasttrain.load_config("tiny.yaml", ["train.log_every=10steps"])
run, result = fasttrain.train(config, "run", quiet=True)
assert fasttrain.evaluate(run)["accuracy"] == result["test_accuracy"]
model = fasttrain.load_model(run)
with fasttrain.loader(config, "train", device="cpu") as batches:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for batch in batches:
        loss = torch.nn.functional.cross_entropy(model.network(batch.images), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(len(batches), model.classes[0], model.probabilities(torch.zeros(1, *model.size, 3)).shape[1])
"""


def test_a_users_script_trains_scores_loads_and_trains_on(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    classes = sources.open_dataset(fasttrain.load_config(tmp_path / "tiny.yaml").data).classes
    assert ended.stdout == f"18 {classes[0]} {len(classes)}\n"
    assert "Warning" not in ended.stderr


@pytest.fixture
def config(tmp_path: Path) -> fasttrain.Config:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return fasttrain.load_config(tmp_path / "tiny.yaml", ["train.epochs=2"])


def test_torch_is_left_as_it_was(config: fasttrain.Config, tmp_path: Path) -> None:
    def settings() -> tuple[object, ...]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.benchmark,
            torch.get_num_threads(),
        )

    train = config.train.model_copy(update={"epochs": 1})
    torch.use_deterministic_algorithms(True)
    try:
        before = settings()
        fasttrain.train(config.model_copy(update={"train": train}), run_dir=tmp_path / "run")
        assert settings() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_batches_are_those_of_the_run(config: fasttrain.Config) -> None:
    store = sources.open_dataset(config.data)
    plan = parts.training_plan(config, store)
    transform = Transform(config.data.augment, store.mean, store.std)
    with fasttrain.loader(config, device="cpu") as batches:
        assert (len(batches), batches.steps_per_epoch) == (36, 18)
        assert batches.facts.classes == store.classes
        found = list(batches)
        assert len(found) == 36
        for step in (0, 20):
            wanted = plan.batch(step)
            images = torch.from_numpy(store.train.images[wanted.indices])
            seen = transform.apply(images, as_tensors(wanted.draws))
            assert torch.allclose(found[step].images, seen, atol=1e-5)
            assert found[step].labels.tolist() == store.train.labels[wanted.indices].tolist()
        again = next(batches.epoch(1))
        assert torch.equal(again.images, found[18].images)


def test_ranks_share_a_batch(config: fasttrain.Config) -> None:
    whole = next(iter(fasttrain.loader(config, device="cpu")))
    halves = [
        next(iter(fasttrain.loader(config, device="cpu", rank=rank, world=2))) for rank in (0, 1)
    ]
    assert torch.equal(torch.cat([half.images for half in halves]), whole.images)
    with pytest.raises(fasttrain.UserError, match="cannot be divided among 3 processes"):
        fasttrain.loader(config, device="cpu", rank=0, world=3)


@pytest.mark.parametrize(("part", "count"), [("validation", 1000), ("test", 2000)])
def test_an_evaluation_sees_every_picture_once(
    config: fasttrain.Config, part: api.Part, count: int
) -> None:
    with fasttrain.loader(config, part, device="cpu") as batches:
        for _ in range(2):
            assert sum(batch.valid for batch in batches) == count
        assert np.array_equal(next(batches.epoch(3)).labels, next(iter(batches)).labels)


def test_a_part_without_pictures_is_refused(config: fasttrain.Config) -> None:
    data = config.data.model_copy(update={"validation": 0})
    with pytest.raises(fasttrain.UserError, match=r"data\.validation=0 holds no pictures out"):
        fasttrain.loader(config.model_copy(update={"data": data}), "validation")


def test_a_device_of_another_kind_is_refused(config: fasttrain.Config) -> None:
    for part in ("train", "test"):
        with pytest.raises(fasttrain.UserError, match="device=mps"):
            fasttrain.loader(config, part, device="mps")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"part": "training"}, r"part='training': choose .*; did you mean 'train'\?"),
        ({"device": "gpu"}, "device=gpu: pictures are delivered on 'cuda' or 'cpu'"),
        ({"device": "cuda:x"}, "device=cuda:x: write 'cuda'"),
        ({"device": "cuda:99"}, "device=cuda:99: torch sees no such NVIDIA GPU here"),
        ({"world": 0}, "rank=0: of world=0 processes"),
        ({"rank": 2, "world": 2}, "rank=2: of world=2 processes; count them from 0"),
    ],
)
def test_batches_for_nobody_are_refused(
    arguments: dict[str, Any], complaint: str, config: fasttrain.Config
) -> None:
    with pytest.raises(fasttrain.UserError, match=complaint):
        fasttrain.loader(config, **{"device": "cpu", **arguments})


def test_a_misspelt_view_is_refused(tmp_path: Path) -> None:
    for function in (fasttrain.load_model, fasttrain.evaluate):
        with pytest.raises(fasttrain.UserError, match=r"tta='flp': .*; did you mean 'flip'\?"):
            function(tmp_path, tta="flp")  # type: ignore[operator]


def test_what_is_offered_is_there_and_nothing_else() -> None:
    assert fasttrain.__all__ == api.__all__
    for name in fasttrain.__all__:
        assert getattr(fasttrain, name) is getattr(api, name)
        assert name in dir(fasttrain)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = fasttrain.trian  # type: ignore[attr-defined]


def test_type_checkers_are_told_that_there_are_types() -> None:
    assert (Path(fasttrain.__file__).parent / "py.typed").exists()
