"""The counting of layers against counts by hand."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from fasttrain import models
from fasttrain.config import AttentionCnnModel, CnnModel, Model, Stage
from fasttrain.errors import UserError
from fasttrain.models.summary import Layer, summarize


def test_a_plain_cnn_is_counted_as_by_hand() -> None:
    summary = summarize(CnnModel(widths=(8, 16), norm="batch"), 10, (32, 32))
    assert summary.layers == (
        Layer("stages.0.convolution", "Conv2d", (8, 32, 32), 8 * 27, 8 * 27 * 1024),
        Layer("stages.0.norm", "BatchNorm2d", (8, 32, 32), 16, 0),
        Layer("stages.1.convolution", "Conv2d", (16, 16, 16), 16 * 72, 16 * 72 * 256),
        Layer("stages.1.norm", "BatchNorm2d", (16, 16, 16), 32, 0),
        Layer("head", "Linear", (10,), 170, 160),
    )


@pytest.mark.parametrize("mix", ["outputs", "kernels"])
def test_branches_cost_their_number_or_one_and_the_mixing_of_the_kernels(mix: str) -> None:
    model = AttentionCnnModel.model_validate(
        {"stages": [{"width": 8, "pool": "none"}], "norm": "none", "mix": mix}
    )
    summary = summarize(model, 10, (16, 16))
    by_name = {layer.name: layer for layer in summary.layers}
    convolution = by_name["blocks.0.branches.0.convolution"]
    assert convolution.parameters == 3 * 8 * 27 + 3 * 8
    once = 8 * 27 * 256
    mixing = 3 * (8 * 27 + 8)
    assert convolution.multiply_adds == (3 * once if mix == "outputs" else once + mixing)
    gate, head = by_name["blocks.0.gate.linear"], by_name["head.layers.1"]
    assert (gate.parameters, gate.multiply_adds) == (12, 9)
    assert (head.parameters, head.multiply_adds) == (90, 80)


@pytest.mark.parametrize("family", ["cnn", "attention_cnn", "wide_resnet"])
def test_the_layers_add_up_to_the_whole(family: str) -> None:
    model: Model = TypeAdapter(Model).validate_python({"family": family})
    summary = summarize(model, 10, (32, 32))
    network = models.build(model, 10)
    assert summary.parameters == sum(weight.numel() for weight in network.parameters())
    assert summary.parameters == sum(layer.parameters for layer in summary.layers)
    assert summary.multiply_adds == sum(layer.multiply_adds for layer in summary.layers)


def test_training_costs_six_operations_for_each_multiply_add_and_picture() -> None:
    summary = summarize(CnnModel(widths=(8,)), 10, (32, 32))
    assert summary.training_flops(1000) == 6 * summary.multiply_adds * 1000


def test_pooling_that_leaves_no_pixels_is_refused() -> None:
    five = AttentionCnnModel(stages=(Stage(width=8),) * 5)
    assert summarize(five, 10, (32, 40)).layers
    with pytest.raises(UserError, match="leaves no pixels of pictures of 31 x 40; 4 times"):
        summarize(five, 10, (31, 40))
    with pytest.raises(UserError, match="halving the sides 6 times"):
        summarize(CnnModel(widths=(8,) * 6), 10, (32, 32))
