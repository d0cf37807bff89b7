"""What a network's section may say, and the one line that answers when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasttrain.config import AttentionCnnModel, CnnModel, Config, Gate, WideResnetModel, load
from fasttrain.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def read(file: Path, text: str, *overrides: str) -> Config:
    file.write_text(text)
    return load(file, overrides)


def refusal(file: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        read(file, text, *overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert caught.value.exit_code == 2
    return message.removeprefix(f"{file}: ")


def attention(file: Path, settings: str) -> AttentionCnnModel:
    model = read(file, f"model: {{family: attention_cnn, {settings}}}").model
    assert isinstance(model, AttentionCnnModel)
    return model


# Families


def test_a_network_without_a_family_is_a_plain_cnn(file: Path) -> None:
    assert read(file, "{}").model == CnnModel()
    assert read(file, "model: {widths: [8]}").model == CnnModel(widths=(8,))
    assert read(file, "{}", "model.widths=[8]").model == CnnModel(widths=(8,))


@pytest.mark.parametrize(
    ("family", "section"),
    [("cnn", CnnModel), ("attention_cnn", AttentionCnnModel), ("wide_resnet", WideResnetModel)],
)
def test_every_family_has_defaults_and_survives_the_way_to_yaml(
    file: Path, family: str, section: type
) -> None:
    config = read(file, f"model: {{family: {family}}}")
    assert type(config.model) is section
    assert read(file, config.to_yaml()) == config


@pytest.mark.parametrize(
    ("family", "nearest"), [("atention_cnn", "attention_cnn"), ("wide_resent", "wide_resnet")]
)
def test_an_unknown_family_is_answered_with_the_nearest(
    file: Path, family: str, nearest: str
) -> None:
    message = refusal(file, f"model: {{family: {family}}}")
    assert message.startswith("model.family: input should be one of 'cnn', 'attention_cnn'")
    assert message.endswith(f"(it is '{family}'); did you mean '{nearest}'?")


@pytest.mark.parametrize(
    ("model", "key", "nearest"),
    [
        ("{width: [8]}", "model.width", "widths"),
        ("{family: attention_cnn, branchs: 3}", "model.branchs", "branches"),
        ("{family: wide_resnet, widening: 3}", "model.widening", "widen"),
        ("{family: attention_cnn, gate: {temp: 3}}", "model.gate.temp", "temperature"),
        ("{family: attention_cnn, head: {hiden: [3]}}", "model.head.hiden", "hidden"),
        (
            "{family: attention_cnn, stages: [{width: 8}, {width: 8, block: 3}]}",
            "model.stages.1.block",
            "blocks",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_of_its_family(
    file: Path, model: str, key: str, nearest: str
) -> None:
    message = refusal(file, f"model: {model}")
    assert message.startswith(f"unknown key '{key}'; did you mean '{nearest}'?")


def test_an_override_inside_a_family_is_named_when_it_is_wrong(file: Path) -> None:
    text = "model: {family: attention_cnn}"
    message = refusal(file, text, "model.branches=0")
    assert message.startswith("the argument 'model.branches=0': model.branches: ")
    message = refusal(file, text, "model.gate.nam=softmax")
    assert message.startswith("the argument 'model.gate.nam=softmax': unknown key 'model.gate.nam'")


# Values


def test_one_kernel_size_and_the_name_of_a_gate_have_short_forms(file: Path) -> None:
    model = attention(file, "kernels: 5, gate: sigmoid")
    assert model.kernels == (5,)
    assert model.sizes == (5, 5, 5)
    assert model.gate == Gate(name="sigmoid")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("branches: 0", "model.branches: input should be greater than or equal to 1"),
        ("stages: []", "model.stages: "),
        ("stages: 3", "model.stages: "),
        ("stages: [64]", "model.stages.0: a section of settings belongs here (it is 64)"),
        ("stages: [{blocks: 2}]", "model.stages.0.width: field required"),
        ("stages: [{width: 0}]", "model.stages.0.width: "),
        ("stages: [{width: 8, blocks: 0}]", "model.stages.0.blocks: "),
        ("stages: [{width: 8, pool: men}]", "model.stages.0.pool: "),
        ("kernels: 4", "model.kernels.0: a kernel size is odd"),
        ("kernels: [3, 2, 3]", "model.kernels.1: a kernel size is odd"),
        ("kernels: [3, 5]", "model: kernels lists 2 sizes for 3 branches"),
        ("kernels: []", "model.kernels: "),
        ("gate: softmx", "model.gate.name: "),
        ("gate: {temperature: 0.5}", "model.gate.temperature: "),
        ("gate: {anneal: 5min}", "model.gate.anneal: this is counted in steps"),
        ("gate: 5", "model.gate: a section of settings belongs here"),
        (
            "mix: kernels, norm: branch",
            "model: kernels can be mixed only where branches are linear",
        ),
        ("norm: layer", "model.norm: "),
        ("activation: tanh", "model.activation: "),
        ("dropout: 1", "model.dropout: "),
        ("stochastic_depth: 0.1", "model: stochastic_depth leaves blocks out"),
        ("residual_norm: true", "model: residual_norm stands before a residual sum"),
        ("squeeze_excite: 0", "model.squeeze_excite: "),
        ("width_factor: 0", "model.width_factor: "),
        ("head: {hidden: [0]}", "model.head.hidden.0: "),
    ],
)
def test_a_setting_that_cannot_be_built_is_named_once(
    file: Path, settings: str, message: str
) -> None:
    found = refusal(file, f"model: {{family: attention_cnn, {settings}}}")
    assert found.startswith(message)
    assert "; model" not in found


def test_a_misspelt_choice_is_answered_with_the_nearest(file: Path) -> None:
    message = refusal(file, "model: {family: attention_cnn, gate: {name: softmx}}")
    assert message.endswith("(it is 'softmx'); did you mean 'softmax'?")


@pytest.mark.parametrize("depth", [9, 27, 29])
def test_a_depth_that_no_wide_residual_network_has_is_refused(file: Path, depth: int) -> None:
    assert refusal(file, f"model: {{family: wide_resnet, depth: {depth}}}").startswith(
        "model.depth: "
    )
    assert "such as 22 or 28" in refusal(file, "model: {family: wide_resnet, depth: 27}")
