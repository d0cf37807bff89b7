"""The convolution that is a matrix product backwards is torch's own, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.models import convolution
from fasttrain.models.convolution import Convolution3x3, weight_gradient


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU with AMX, which this one need not have."""
    monkeypatch.setattr(convolution, "_TILES", True)


def channels_last(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    images = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(7, 7), (3, 5), (1, 1), (2, 6)])
def test_the_gradient_of_a_kernel(size: tuple[int, int]) -> None:
    images, slopes = channels_last(4, 6, *size), channels_last(4, 5, *size)
    kernel = torch.zeros(5, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad((F.conv2d(images, kernel, padding=1) * slopes).sum(), kernel)
    torch.testing.assert_close(weight_gradient(images, slopes), wanted)


def both(inputs: int) -> tuple[Convolution3x3, nn.Conv2d]:
    torch.manual_seed(0)
    ours = Convolution3x3(inputs, 8)
    theirs = nn.Conv2d(inputs, 8, 3, padding=1, bias=False)
    theirs.load_state_dict(ours.state_dict())
    return ours.to(memory_format=torch.channels_last), theirs.to(memory_format=torch.channels_last)


def run(one: Callable[[Tensor], Tensor], weight: Tensor, inputs: int) -> tuple[Tensor, ...]:
    """What comes out, and the gradients of pictures and weight."""
    images = channels_last(6, inputs, 5, 4, dtype=torch.float32).requires_grad_()
    slopes = channels_last(6, 8, 5, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = one(images)
    return found, *torch.autograd.grad((found.float() * slopes).sum(), (images, weight))


def exact(inputs: int) -> Tensor:
    """The gradient of the weight, of pictures and slopes that are rounded and nothing else."""
    images, slopes = (
        channels_last(6, channels, 5, 4, dtype=torch.float32).bfloat16().double()
        for channels in (inputs, 8)
    )
    kernel = torch.zeros(8, inputs, 3, 3, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad((F.conv2d(images, kernel, padding=1) * slopes).sum(), kernel)
    return found.float()


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("inputs", [8, 128])
def test_in_bfloat16_it_is_torchs_own(inputs: int, compiled: bool) -> None:
    """But that on CPUs without bfloat16 torch's gradient of the weight is rounded more."""
    ours, theirs = both(inputs)
    one = torch.compile(ours, dynamic=False, fullgraph=True) if compiled else ours
    own, wanted = run(one, ours.weight, inputs), run(theirs, theirs.weight, inputs)
    for mine, their in zip(own, wanted, strict=True):
        assert mine.dtype == their.dtype
    if inputs == 128:  # products
        wanted = *wanted[:2], exact(inputs)
    for mine, their in zip(own, wanted, strict=True):
        torch.testing.assert_close(mine, their, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("inputs", "size", "has_tiles", "wanted"),
    [(8, 7, True, 0), (128, 7, True, 1), (128, 15, True, 0), (128, 7, False, 0)],
)
def test_wide_layers_on_few_pixels_alone_are_products_and_with_amx(
    inputs: int, size: int, has_tiles: bool, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "_TILES", has_tiles)
    found, calls = convolution.weight_gradient, []
    monkeypatch.setattr(
        convolution, "weight_gradient", lambda *words: (calls.append(words), found(*words))[1]
    )
    ours, _ = both(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        ours(channels_last(2, inputs, size, size, dtype=torch.float32)).sum().backward()
    assert len(calls) == wanted


@pytest.mark.usefixtures("tiles")
def test_elsewhere_it_is_torchs_own_to_the_bit() -> None:
    ours, theirs = both(128)
    images = channels_last(2, 128, 5, 4, dtype=torch.float32)
    assert torch.equal(ours(images), theirs(images))  # whole precision
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours.eval()(images), theirs.eval()(images))
