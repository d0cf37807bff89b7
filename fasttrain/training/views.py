"""Test-time views: one answer from several looks at a picture.

Shapes: B pictures of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.config import Tta


def look(model: Callable[[Tensor], Tensor], images: Tensor, tta: Tta) -> Tensor:
    """The mean logits over the views of (B, 3, H, W) pictures, (B, classes).

    `flip` adds the mirror image. `shift` further adds both, moved by a pixel to either corner
    with mirrored borders, at half the weight (Jordan, arXiv 2404.00498, section 3.5).
    """
    match tta:
        case "none":
            # All views in one layout: compiled code is of one.
            return model(images.contiguous(memory_format=torch.channels_last))
        case "flip":
            return (look(model, images, "none") + look(model, images.flip(3), "none")) / 2
        case "shift":
            padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
            first, last = padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]
            moved = look(model, first, "flip") + look(model, last, "flip")
            return (2 * look(model, images, "flip") + moved) / 4
