"""`fasttrain export`: a file answers as the model did, or it is not written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from fasttrain import models
from fasttrain.cli import main
from fasttrain.config import Config
from fasttrain.data.facts import Facts
from fasttrain.errors import FasttrainError
from fasttrain.use import formats
from fasttrain.use.agreement import compare
from fasttrain.use.classifier import Classifier
from fasttrain.use.formats import Format
from fasttrain.use.model import Trained, open_model
from tests.use.conftest import Example

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
FORMATS = list(SUFFIXES)
SIZE = (16, 12)
ATTENTION = {"family": "attention_cnn", "stages": [{"width": 8}, {"width": 16, "pool": "mean"}]}
NETWORKS: dict[str, dict[str, Any]] = {
    "cnn": {"family": "cnn", "widths": [8, 8], "norm": "batch"},
    "attention": {**ATTENTION, "norm": "branch", "kernels": [1, 3, 5]},
    "attention, all parts": {
        **ATTENTION,
        "whitening": {},
        "residual": True,
        "squeeze_excite": 4,
        "stochastic_depth": 0.2,
        "dropout": 0.1,
        "head": {"hidden": [8], "pool": "max"},
        "activation": "silu",
    },
    "attention, kernels mixed": {**ATTENTION, "mix": "kernels", "norm": "none"},
    "wide_resnet": {"family": "wide_resnet", "depth": 10, "widen": 1},
    "whitened_cnn": {"family": "whitened_cnn", "widths": [8, 8], "residual": True},
}


def trained(settings: dict[str, Any], seed: int = 0, **train: Any) -> Trained:
    """A network that has seen something, so that no statistics are those of the start."""
    torch.manual_seed(seed)
    config = Config.model_validate({"model": settings, "train": train})
    network = models.build(config.model, 5)
    network(torch.randn(8, 3, *SIZE) + 0.3)  # in training: the running statistics move
    models.set_temperature(network, 3.0)
    classes = ("ant", "bee", "cat", "dog", "élan")
    mean, std = (120.5, 110.25, 100.125), (60.5, 61.0, 62.0)
    facts = Facts("made up", classes, SIZE, mean, std, "0" * 16)
    return Trained(Classifier(network, facts, config.train.tta), config, Path("checkpoint"))


def noise(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def cross(form: Format, model: Trained) -> formats.Answering:
    """Out and in again."""
    return formats.load_as(form, formats.serialize_as(form, model))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_leaves_in_every_format(name: str, form: Format) -> None:
    model = trained(NETWORKS[name])
    found = compare(model.model, cross(form, model), noise(21), None)
    found.require(name)
    assert (found.pictures, found.same + found.ties) == (21, 21)
    assert found.difference <= 1e-4


@pytest.mark.parametrize("form", FORMATS)
def test_views_are_part_of_the_file(form: Format) -> None:
    model = trained(NETWORKS["cnn"], tta="flip")
    compare(model.model, cross(form, model), noise(5), None).require("flip")
    plain = trained(NETWORKS["cnn"])
    with pytest.raises(FasttrainError, match="does not agree"):
        compare(plain.model, cross(form, model), noise(5), None).require("flip")


def test_disagreement_of_any_kind_is_noticed() -> None:
    model = trained(NETWORKS["cnn"])
    answers = formats.Answers(model.model).eval()
    images = noise(9)

    def spoil(change: Any) -> formats.Answering:
        return lambda pictures: change(*answers(pictures))

    compare(model.model, answers, images, None).require("unchanged")
    for name, change in {
        "logits": lambda logits, shares: (logits + 1e-3, shares),
        "softmax": lambda logits, shares: (logits, shares * 1.01),
        "nan": lambda logits, shares: (logits * torch.nan, shares),
        "classes": lambda logits, shares: (logits.flip(1), shares.flip(1)),
        "one batch size": lambda logits, _: (
            2 * logits if len(logits) == 1 else logits,
            torch.softmax(2 * logits if len(logits) == 1 else logits, 1),
        ),
    }.items():
        with pytest.raises(FasttrainError, match="does not agree with the model"):
            compare(model.model, spoil(change), images, None).require(name)


def test_what_the_model_cannot_tell_apart_is_a_tie() -> None:
    model = trained(NETWORKS["cnn"])
    torch.nn.init.zeros_(model.model.network.head.weight)
    torch.nn.init.zeros_(model.model.network.head.bias)
    nudge = torch.tensor([0, 1e-5, 0, 0, 0])
    answers = formats.Answers(model.model).eval()
    found = compare(
        model.model,
        lambda images: (answers(images)[0] + nudge, answers(images)[1]),
        noise(4),
        None,
    )
    found.require("a tie")
    assert (found.same, found.ties) == (0, 4)


def export(*words: object) -> Result:
    ended = CliRunner().invoke(main, ["export", *map(str, words)])
    assert "Traceback" not in ended.output
    return ended


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_writes_a_file_that_stands_alone(
    example: Example, tmp_path: Path, form: Format
) -> None:
    file = tmp_path / f"out{SUFFIXES[form]}"
    ended = export(example.path, "--format", form, "-o", file)
    assert ended.exit_code == 0, ended.output
    assert "checked on 30 pictures of folder's test set: 30 get the model's class" in ended.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, f"{file.name}.md"]
    content = file.read_bytes()
    for place in (Path(__file__).parent.parent.parent, example.pictures, example.path):
        assert str(place).encode() not in content
    card = (tmp_path / f"{file.name}.md").read_text()
    accuracy = f"{example.result['test_accuracy']:.2%}"
    assert f"the run's result: {accuracy} of 30 test pictures, with its last weights, in fp" in card
    assert f"of which it names {accuracy} rightly" in card
    assert "classes, in order: 0, 1, 2," in card
    assert str(tmp_path) not in card
    loading = card.split("```python\n")[1].split("```")[0]
    scope: dict[str, Any] = {"images": example.store.test.images.copy()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(loading, scope)  # noqa: S102 - what the card tells users to run
    with torch.no_grad():
        images = torch.from_numpy(example.store.test.images.copy())
        wanted = open_model(example.path).model.probabilities(images)
    assert np.allclose(np.asarray(scope["probabilities"].tolist()), wanted, atol=1e-5)
    found = scope.get("classes") or scope["model"].classes
    assert tuple(found) == example.store.classes


def test_an_onnx_file_tells_its_shapes_and_what_it_was_made_of(example: Example) -> None:
    content = formats.serialize_as("onnx", open_model(example.path))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == (
        "images", "tensor(uint8)", ["batch", 16, 16, 3],
    )  # fmt: skip
    assert [(out.name, out.shape) for out in session.get_outputs()] == [
        ("logits", ["batch", 10]),
        ("probabilities", ["batch", 10]),
    ]
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["data"])["mean"] == list(example.store.mean)
    assert json.loads(about["config"])["model"]["widths"] == [8, 16]
    assert json.loads(about["config"])["data"]["path"] is None


def test_without_the_data_set_random_pictures_are_shown(example: Example, tmp_path: Path) -> None:
    run = example.copy(tmp_path / "run")
    config = (run / "config.yaml").read_text().replace(str(example.pictures), "/nowhere")
    (run / "config.yaml").write_text(config)
    file = tmp_path / "out.safetensors"
    ended = export(run, "--format", "safetensors", "-o", file, "--check", 25)
    assert ended.exit_code == 0, ended.output
    assert "checked on 25 random pictures (the data set is not at hand): 25 get" in ended.stdout
    assert "rightly" not in (tmp_path / "out.safetensors.md").read_text()


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_a_file_that_does_not_agree_is_not_written(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Format
) -> None:
    right = formats.serialize_as

    def wrong(form: Format, model: Trained) -> bytes:
        facts = model.model.facts
        darker = replace(facts, mean=(facts.mean[0] - 1, *facts.mean[1:]))
        other = Classifier(model.model.network, darker, model.model.tta)
        return right(form, replace(model, model=other))

    monkeypatch.setattr(formats, "serialize_as", wrong)
    ended = export(example.path, "--format", form, "-o", tmp_path / f"out{SUFFIXES[form]}")
    assert ended.exit_code == 1
    assert ended.stderr.count("\n") == 1
    assert "does not agree with the model: of 30 pictures" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_packages_that_are_missing_are_named_with_the_mend(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else name)
    ended = export(example.path, "--format", "onnx", "-o", tmp_path / "out.onnx")
    assert (ended.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert ended.stderr == (
        "fasttrain: --format onnx needs onnxscript, which is not installed: "
        "run pip install onnxscript\n"
    )
    ended = export(example.path, "--format", "safetensors", "-o", tmp_path / "out.safetensors")
    assert ended.exit_code == 0


def test_a_place_that_cannot_be_written_is_refused_first(example: Example, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.pt2").mkdir()
    for name, complaint in (
        ("model.onnx", "a file of --format torch ends in .pt2; rename it"),
        ("file/model.pt2", "cannot write"),
        ("folder.pt2", "is a folder; name a file in it"),
    ):
        ended = export(example.path, "--format", "torch", "-o", tmp_path / name)
        assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
        assert complaint in ended.stderr


def test_an_exported_file_predicts_and_is_exported_again(example: Example, tmp_path: Path) -> None:
    file = tmp_path / "out.safetensors"
    assert (
        export(example.path, "--format", "safetensors", "-o", file, "--tta", "flip").exit_code == 0
    )
    card = (tmp_path / "out.safetensors.md").read_text()
    assert "; this file is with the views 'flip' and not 'none'" in card
    assert open_model(file).model.tta == "flip"
    found = [
        CliRunner().invoke(main, ["predict", *map(str, words), str(example.pictures / "test")])
        for words in ((file,), (example.path, "--tta", "flip"))
    ]
    assert found[0].stdout == found[1].stdout
    again = tmp_path / "again.safetensors"
    ended = export(file, "--format", "safetensors", "-o", again)
    assert ended.exit_code == 0, ended.output
    assert open_model(again).model.facts == open_model(file).model.facts
    first, second = load_file(file), load_file(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
