"""The baseline network and the parts it is made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain import models
from fasttrain.config import CnnModel
from fasttrain.models.cnn import CNN
from fasttrain.models.pooling import global_max_pool, max_pool_2x2


def build(norm: str = "none", widths: tuple[int, ...] = (4, 8, 6), classes: int = 7) -> CNN:
    torch.manual_seed(0)
    model = models.build(CnnModel.model_validate({"widths": widths, "norm": norm}), classes)
    assert isinstance(model, CNN)
    return model


def pictures(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("size", [(32, 32), (16, 24), (9, 13)])
def test_pictures_become_one_logit_for_each_class(
    norm: str, classes: int, size: tuple[int, int]
) -> None:
    logits = build(norm, classes=classes)(pictures(5, 3, *size))
    assert logits.shape == (5, classes)
    assert logits.isfinite().all()


def test_every_width_is_a_stage_that_halves_the_picture() -> None:
    model = build(widths=(4, 8, 6))
    images = pictures(2, 3, 32, 32)
    shapes = []
    for stage in model.stages:
        images = stage(images)
        shapes.append(tuple(images.shape))
    assert shapes == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 6, 4, 4)]


def test_a_single_width_is_a_network_too() -> None:
    assert build(widths=(3,))(pictures(2, 3, 8, 8)).shape == (2, 7)


def test_without_norm_there_are_no_buffers_and_training_is_as_evaluation() -> None:
    model = build("none")
    assert list(model.buffers()) == []
    images = pictures(4, 3, 16, 16)
    assert torch.equal(model.train()(images), model.eval()(images))


def test_with_norm_every_stage_keeps_running_statistics() -> None:
    model = build("batch")
    assert len(list(model.buffers())) == 3 * len(model.stages)
    images = pictures(4, 3, 16, 16)
    assert not torch.equal(model.train()(images), model.eval()(images))


def test_a_convolution_before_a_norm_has_no_bias_of_its_own() -> None:
    assert not any(name.endswith("convolution.bias") for name, _ in named(build("batch")))
    assert sum(name.endswith("convolution.bias") for name, _ in named(build("none"))) == 3


def named(model: nn.Module) -> list[tuple[str, Tensor]]:
    return list(model.named_parameters())


def test_the_network_is_what_its_description_says() -> None:
    model, images = build("none"), pictures(3, 3, 17, 14)
    weights = model.state_dict()
    expected = images
    for stage in range(3):
        name = f"stages.{stage}.convolution"
        expected = F.conv2d(expected, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
        expected = F.relu(F.max_pool2d(expected, 2))
    expected = F.linear(expected.mean(dim=(2, 3)), weights["head.weight"], weights["head.bias"])
    assert torch.allclose(model(images), expected, atol=1e-6)


def test_a_picture_does_not_depend_on_the_others_of_its_batch() -> None:
    model, images = build("batch").eval(), pictures(4, 3, 16, 16)
    assert torch.allclose(model(images)[2:3], model(images[2:3]), atol=1e-6)


def test_every_weight_gets_a_gradient() -> None:
    model = build("batch")
    loss = F.cross_entropy(model(pictures(8, 3, 16, 16)), torch.arange(8) % 7)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), gradient in zip(named(model), gradients, strict=True):
        assert gradient.abs().sum() > 0, name


def test_channels_last_memory_is_kept_through_the_stages_and_changes_nothing() -> None:
    plain, images = build("batch").eval(), pictures(2, 3, 16, 16)
    packed = build("batch").eval().to(memory_format=torch.channels_last)
    last = images.to(memory_format=torch.channels_last)
    assert packed.stages[0](last).is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(plain(images), packed(last), atol=1e-6)


def test_the_seed_decides_the_first_weights() -> None:
    one, same = build(), build()
    torch.manual_seed(1)
    other = models.build(CnnModel(widths=(4, 8, 6)), 7)
    for (name, weight), (_, twin), (_, stranger) in zip(
        named(one), named(same), named(other), strict=True
    ):
        assert torch.equal(weight, twin), name
        assert not torch.equal(weight, stranger), name


# Pooling


@pytest.mark.parametrize("size", [(2, 2), (8, 6), (7, 9), (5, 4), (3, 3), (32, 32)])
def test_pooling_is_the_maximum_of_each_block(size: tuple[int, int]) -> None:
    images = pictures(2, 3, *size)
    assert torch.equal(max_pool_2x2(images), F.max_pool2d(images, 2))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(7, 6), (8, 8), (2, 3)])
def test_the_gradient_of_pooling_goes_to_the_first_maximum(
    size: tuple[int, int], layout: torch.memory_format
) -> None:
    images = pictures(2, 5, *size).round(decimals=0)  # many are equal
    images = images.contiguous(memory_format=layout).requires_grad_()
    weights = pictures(2, 5, size[0] // 2, size[1] // 2)
    (ours,) = torch.autograd.grad((max_pool_2x2(images) * weights).sum(), images)
    (theirs,) = torch.autograd.grad((F.max_pool2d(images, 2) * weights).sum(), images)
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(3, 5), (4, 2), (1, 1)])
def test_the_gradient_of_the_maximum_over_all_pixels_goes_to_it(
    size: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    pixels = size[0] * size[1]
    order = torch.rand(2, 7, pixels, generator=torch.Generator().manual_seed(0)).argsort(dim=2)
    images = order.view(2, 7, *size).to(dtype).contiguous(memory_format=layout).requires_grad_()
    weights = pictures(2, 7, 1, 1).flatten(1).to(dtype)
    pooled, expected = global_max_pool(images), images.amax(dim=(2, 3))
    assert torch.equal(pooled, expected)
    (ours,) = torch.autograd.grad((pooled * weights).sum(), images)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), images)
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("size", [(7, 6), (8, 8), (2, 3)])
def test_pooling_on_a_gpu(size: tuple[int, int], compiled: bool) -> None:
    images = pictures(2, 16, *size).round(decimals=0).bfloat16().cuda()  # many are equal
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()

    def among_others(pool: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda each: F.silu(pool(2 * each)).float().sum()

    ours, theirs = among_others(max_pool_2x2), among_others(lambda each: F.max_pool2d(each, 2))
    ours = torch.compile(ours, dynamic=False) if compiled else ours
    torch.testing.assert_close(ours(images), theirs(images), rtol=0.01, atol=0.1)
    (own,), (their,) = (torch.autograd.grad(each(images), images) for each in (ours, theirs))
    torch.testing.assert_close(own, their, rtol=0.02, atol=0.02)
    assert torch.equal(own != 0, their != 0), "the first of equal maxima"
