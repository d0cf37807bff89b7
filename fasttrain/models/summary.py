"""What a network is made of and what it costs, counted without computing anything.

A multiply-add is one multiplication and one addition inside a convolution or a matrix product;
norms, activations, pooling and the weighting of branches are left out, as everywhere in the
literature. They are a per cent or less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fasttrain import models
from fasttrain.config import Model

# For every multiply-add forwards there are two backwards: one for the gradient of the input, one
# for that of the weights.
_PASSES = 3
_FLOPS_PER_MULTIPLY_ADD = 2


@dataclass(frozen=True)
class Layer:
    """A module with parameters of its own.

    Attributes:
        name: Its place in the network.
        kind: Its class.
        shape: What it puts out for one picture: (C, H, W), or (C,).
        parameters: Numbers that are learnt.
        multiply_adds: For one picture, forwards.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """A network, layer by layer in the order of execution, and in all."""

    layers: tuple[Layer, ...]
    parameters: int
    multiply_adds: int

    def training_flops(self, pictures: int) -> int:
        """Floating-point operations of training on that many pictures, forwards and backwards."""
        return _PASSES * _FLOPS_PER_MULTIPLY_ADD * self.multiply_adds * pictures


def summarize(model: Model, classes: int, size: tuple[int, int]) -> Summary:
    """Count a network's layers for one picture of `size` (height, width).

    It runs on torch's meta device, where tensors have a shape and no content.

    Raises:
        UserError: pooling leaves no pixels.
    """
    models.check(model, size)
    with torch.device("meta"):
        network = models.build(model, classes).eval()
        picture = torch.empty(1, 3, *size)
    layers: list[Layer] = []
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _watch(network, counter, layers)
        network(picture)
    return Summary(
        tuple(layers),
        sum(weight.numel() for weight in network.parameters()),
        counter.get_total_flops() // _FLOPS_PER_MULTIPLY_ADD,
    )


def _watch(network: nn.Module, counter: FlopCounterMode, layers: list[Layer]) -> None:
    """Append a layer whenever a module with parameters of its own has run."""

    def note(name: str, own: int, module: nn.Module, _inputs: Any, output: Tensor) -> None:
        # The counter calls the network by its class, and knows who has multiplied.
        flops = counter.get_flop_counts().get(f"{type(network).__name__}.{name}", {})
        kind, shape = type(module).__name__.strip("_"), tuple(output.shape[1:])
        cost = sum(flops.values()) // _FLOPS_PER_MULTIPLY_ADD
        layers.append(Layer(name, kind, shape, own, cost))

    for name, module in network.named_modules():
        own = sum(weight.numel() for weight in module.parameters(recurse=False))
        if own:
            module.register_forward_hook(partial(note, name, own))
