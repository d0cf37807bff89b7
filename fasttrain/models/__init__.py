"""The model families; a new one registers with one line in `_FAMILIES`."""

from __future__ import annotations

from torch import nn

from fasttrain.config import Model
from fasttrain.models.cnn import CNN

_FAMILIES = {"cnn": CNN}


def build(model: Model, classes: int) -> nn.Module:
    """Build the network that `model` describes, with fresh weights from torch's generator.

    It maps (B, 3, H, W) normalised pictures to (B, classes) logits.
    """
    return _FAMILIES[model.family](model, classes)
