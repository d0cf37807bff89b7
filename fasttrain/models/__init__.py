"""The model families; a new one registers with one line in `_FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from fasttrain.config import Model
from fasttrain.errors import UserError
from fasttrain.models.attention_cnn import AttentionCNN
from fasttrain.models.cnn import CNN
from fasttrain.models.whitened_cnn import WhitenedCNN
from fasttrain.models.whitening import Whitening
from fasttrain.models.wide_resnet import WideResNet

_FAMILIES: dict[str, Callable[[Any, int], nn.Module]] = {
    "cnn": CNN,
    "attention_cnn": AttentionCNN,
    "wide_resnet": WideResNet,
    "whitened_cnn": WhitenedCNN,
}


def build(model: Model, classes: int) -> nn.Module:
    """Build the network that `model` describes, with fresh weights from torch's generator.

    It maps (B, 3, H, W) normalised pictures to (B, classes) logits.
    """
    return _FAMILIES[model.family](model, classes)


def check(model: Model, size: tuple[int, int]) -> None:
    """Refuse a network that leaves no pixels of pictures of `size` (height, width).

    Raises:
        UserError: it does; the message says how often these pictures can be halved.
    """
    whitening = getattr(model, "whitening", None)
    patch = whitening.patch if whitening else 1
    side = min(size) - patch + 1
    if side < 1:
        raise UserError(
            f"model.whitening: there are no patches of {patch} x {patch} pixels in "
            f"pictures of {size[0]} x {size[1]}; choose a smaller patch"
        )
    possible = side.bit_length() - 1
    if model.halvings > possible:
        raise UserError(
            f"model: halving the sides {model.halvings} times leaves no pixels of pictures of "
            f"{size[0]} x {size[1]}; {possible} times is the most"
        )


def look_at(model: nn.Module, pictures: Iterable[Tensor]) -> None:
    """Let a network that whitens see training pictures, (N, 3, H, W) and normalised, part by part.

    For other networks none is fetched.
    """
    for layer in model.modules():
        if isinstance(layer, Whitening):
            layer.look_at(pictures)
            return


def set_temperature(model: nn.Module, value: float) -> None:
    """Set the temperature of a network's gates for the next step; others have none.

    A network that anneals one keeps it in a buffer named `temperature`, of shape (). Writing to
    it neither waits for the device nor makes compiled code outdated.
    """
    temperature = getattr(model, "temperature", None)
    if isinstance(temperature, Tensor):
        temperature.fill_(value)
