"""A model comes out of its run as it was trained, with all that is needed to use it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fasttrain.errors import UserError
from fasttrain.training.views import look
from fasttrain.use.model import Trained, open_model
from tests.use.conftest import Example


def pictures(example: Example) -> Tensor:
    return torch.from_numpy(example.store.test.images.copy())


@torch.no_grad()
def logits(trained: Trained, images: Tensor) -> Tensor:
    found: Tensor = trained.model(images)
    return found


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(UserError) as caught:
        open_model(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_keeps_what_its_data_set_is_like(example: Example) -> None:
    store = example.store
    assert json.loads((example.path / "data.json").read_text()) == {
        "name": "folder",
        "classes": [str(label) for label in range(10)],
        "size": [16, 16],
        "mean": list(store.mean),
        "std": list(store.std),
        "digest": store.digest,
    }


def test_a_model_needs_no_data_and_is_as_good_as_the_run_says(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = pictures(example), torch.from_numpy(example.store.test.labels)
    monkeypatch.setattr("fasttrain.data.sources.open_here", None)  # would not be callable
    trained = open_model(example.path)
    assert trained.model.classes == example.store.classes
    assert trained.model.size == (16, 16)
    assert not trained.model.training
    found = logits(trained, images)
    assert found.shape == (30, 10)
    assert float((found.argmax(dim=1) == labels).double().mean()) == example.result["test_accuracy"]
    loss = torch.nn.functional.cross_entropy(found, labels)
    assert float(loss) == pytest.approx(example.result["test_loss"], abs=1e-5)


def test_the_averaged_weights_of_the_newest_checkpoint_are_taken(example: Example) -> None:
    trained = open_model(example.path)
    newest = sorted((example.path / "checkpoints").iterdir())[-1]
    assert trained.source == newest
    averaged, last = load_file(newest / "ema.safetensors"), load_file(newest / "model.safetensors")
    for name, value in trained.model.network.state_dict().items():
        assert torch.equal(value, averaged[name])
    assert any(not torch.equal(averaged[name], last[name]) for name in averaged)


def test_floats_are_grey_levels_too_and_probabilities_add_up(example: Example) -> None:
    trained, images = open_model(example.path), pictures(example)
    assert torch.equal(logits(trained, images), logits(trained, images.float()))
    shares = trained.model.probabilities(images)
    assert not shares.requires_grad
    assert torch.equal(trained.model.probabilities(images.numpy()), shares)
    assert torch.allclose(shares.sum(dim=1), torch.ones(30))
    assert torch.equal(shares.argmax(dim=1), logits(trained, images).argmax(dim=1))


def test_pictures_of_another_shape_are_refused(example: Example) -> None:
    model = open_model(example.path).model
    for shape in ((1, 3, 16, 16), (1, 17, 16, 3), (16, 16, 3)):
        with pytest.raises(ValueError, match=r"takes \(B, 16, 16, 3\)"):
            model(torch.zeros(shape, dtype=torch.uint8))


@torch.no_grad()
def test_views_are_those_that_are_asked_for(example: Example) -> None:
    plain, images = open_model(example.path), pictures(example)
    shifted = open_model(example.path, tta="shift")
    assert (plain.model.tta, shifted.model.tta) == ("none", "shift")
    mean, std = torch.tensor(example.store.mean), torch.tensor(example.store.std)
    normalized = ((images - mean) / std).permute(0, 3, 1, 2)
    wanted = look(plain.model.network, normalized, "shift")
    assert torch.allclose(logits(shifted, images), wanted, atol=1e-5)
    assert not torch.allclose(logits(plain, images), wanted, atol=1e-3)


def test_a_damaged_newest_checkpoint_is_passed_over_and_told(
    example: Example, tmp_path: Path
) -> None:
    run = example.copy(tmp_path / "run")
    older, newest = sorted((run / "checkpoints").iterdir())[-2:]
    (newest / "ema.safetensors").write_bytes(b"")
    trained = open_model(run)
    assert trained.source == older
    assert trained.passed_over == (f"{newest}: the checksum of ema.safetensors does not hold",)


def test_the_best_checkpoint_is_the_one_that_validated_best(
    example: Example, tmp_path: Path
) -> None:
    run = example.copy(tmp_path / "run")
    older = sorted((run / "checkpoints").iterdir())[0]
    manifest = json.loads((older / "manifest.json").read_text())
    (older / "manifest.json").write_text(json.dumps({**manifest, "score": 1.1}))
    assert open_model(run, best=True).source == older
    assert open_model(run).source != older


def test_an_old_run_asks_its_data_set(example: Example, tmp_path: Path) -> None:
    run = example.copy(tmp_path / "run", data=True)
    trained = open_model(run)
    assert trained.model.facts == open_model(example.path).model.facts


def test_an_old_run_without_its_data_set_is_refused(example: Example, tmp_path: Path) -> None:
    run = example.copy(tmp_path / "run", data=True)
    config = (run / "config.yaml").read_text().replace(str(example.pictures), str(tmp_path / "no"))
    (run / "config.yaml").write_text(config)
    line = refusal(run)
    assert line.startswith(f"{run}: this run does not keep its class names")
    assert f"data.path={tmp_path / 'no'} is not there" in line
    cifar = config.replace("dataset: folder", "dataset: cifar10").replace(str(tmp_path / "no"), "")
    (run / "config.yaml").write_text(cifar)
    assert refusal(run).endswith("is not at hand: set FASTTRAIN_DATA to where it lies")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        (None, None, "data.json: cannot be read"),
        ("mean", [1, 2], "data.json: cannot be read"),
        ("size", "16x16", "data.json: cannot be read"),
        ("digest", "0" * 16, "was trained on other pictures than its data.json says"),
    ],
)
def test_a_spoilt_description_is_refused(
    example: Example, tmp_path: Path, key: str | None, value: object, complaint: str
) -> None:
    run = example.copy(tmp_path / "run")
    content = json.loads((run / "data.json").read_text())
    spoilt = json.dumps({**content, key: value}) if key else "{"
    (run / "data.json").write_text(spoilt)
    assert complaint in refusal(run)


def test_what_holds_no_model_is_refused(example: Example, tmp_path: Path) -> None:
    assert "there is no run here" in refusal(tmp_path)
    assert "leave out --best" in refusal(tmp_path / "a.safetensors", best=True)
    assert "there is no such file" in refusal(tmp_path / "a.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    assert "not a model that fasttrain export wrote" in refusal(tmp_path / "text.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    assert "not a model that fasttrain export wrote" in refusal(tmp_path / "other.safetensors")
    run = example.copy(tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    assert "there is no whole checkpoint" in refusal(run)
