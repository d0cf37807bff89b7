"""A trained network with all that stands between a picture and its class."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fasttrain.config import Tta
from fasttrain.data.augment import normalize
from fasttrain.data.facts import Facts
from fasttrain.training.views import look


class Classifier(nn.Module):
    """Normalises pictures, looks at them, and scores the classes; in evaluation mode.

    Shapes: B pictures of H x W pixels, as large as those that the network was trained on.

    Args:
        network: Maps (B, 3, H, W) normalised pictures to (B, classes) logits.
        facts: What the data set is like that it was trained on.
        tta: How it looks at each picture (`training.views`).

    Attributes:
        network: As given.
        facts: As given.
        tta: As given; may be changed at any time.
    """

    def __init__(self, network: nn.Module, facts: Facts, tta: Tta = "none") -> None:
        super().__init__()
        self.network, self.facts, self.tta = network, facts, tta
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; a column of the logits is a position in this tuple."""
        return self.facts.classes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures, in pixels."""
        return self.facts.size

    def forward(self, images: Tensor) -> Tensor:
        """Score pictures.

        Args:
            images: (B, H, W, 3), RGB, on the network's device: uint8, or floats from 0 to 255.

        Returns:
            (B, classes) float32 logits.

        Raises:
            ValueError: the pictures have another size or layout.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (*self.size, 3):
            height, width = self.size
            raise ValueError(
                f"pictures of shape {tuple(images.shape)}; this model takes (B, {height}, {width}, "
                "3): grey levels from 0 to 255, colours last"
            )
        normalized = normalize(images, self.facts.mean, self.facts.std)
        return look(self.network, normalized, self.tta).float()

    @torch.no_grad()
    def probabilities(self, images: Tensor | NDArray[Any]) -> Tensor:
        """The softmax of `forward`, (B, classes), without a gradient; arrays are taken, too."""
        device = next(self.parameters()).device
        return torch.softmax(self(torch.as_tensor(images, device=device)), dim=1)
