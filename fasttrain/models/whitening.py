"""A first layer that is set by what the training pictures look like, and not learnt.

Page, "How to train your ResNet 8: Bag of tricks", 2019; Jordan, arXiv 2404.00498, section 3.2.

Shapes: B pictures of H x W pixels, patches of p x p.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain import config


class Whitening(nn.Module):
    """Patches of p x p pixels onto their principal axes, each to unit variance, and the negatives.

    The kernels are a buffer: nothing trains them. The bias, where there is one, is a parameter.

    Attributes:
        outputs: Channels: twice as many as there are numbers in a patch.
    """

    weight: Tensor

    def __init__(self, settings: config.Whitening) -> None:
        super().__init__()
        patch = settings.patch
        numbers = 3 * patch**2
        self._patch, self._epsilon = patch, settings.epsilon
        self.outputs = 2 * numbers
        axes = torch.eye(numbers).view(numbers, 3, patch, patch)
        self.register_buffer("weight", torch.cat([axes, -axes]))
        self.bias = nn.Parameter(torch.zeros(self.outputs)) if settings.bias else None

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, outputs, H - p + 1, W - p + 1)."""
        return F.conv2d(images, self.weight, self.bias)

    @torch.no_grad()
    def look_at(self, pictures: Iterable[Tensor]) -> None:
        """Set the kernels by the patches of normalised pictures, (N, 3, H, W) at a time."""
        covariance, count = torch.zeros(1, dtype=torch.float64), 0
        for images in pictures:
            patches = images.double().unfold(2, self._patch, 1).unfold(3, self._patch, 1)
            numbers = patches.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)  # (N, 3 p p, ...)
            # A product for each picture, so that there are many to be shared out.
            covariance = covariance.to(images.device) + (numbers @ numbers.mT).sum(dim=0)
            count += len(numbers) * numbers.shape[2]
        variances, axes = torch.linalg.eigh((covariance / count).cpu())  # too small for a GPU
        # Where pictures have no colour, rounding may leave less than no variance along an axis.
        kernels = (axes / (variances.clamp(min=0) + self._epsilon).sqrt()).T.flip(0)
        # An eigenvector's sign is anyone's choice: the largest number is made positive.
        largest = kernels.gather(1, kernels.abs().argmax(dim=1, keepdim=True))
        kernels = (kernels * largest.sign()).view(-1, 3, self._patch, self._patch)
        self.weight.copy_(torch.cat([kernels, -kernels]))
