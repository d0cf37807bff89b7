"""A shallow, wide network that is built to be trained in a few epochs.

Its first layer is not learnt: it whitens small patches, by what the training pictures look like.
All other convolutions start near the identity. Jordan, "94 % on CIFAR-10 in 3.29 seconds on a
single GPU", arXiv 2404.00498, sections 3.1 to 3.3; the whitening is Page's, "How to train your
ResNet 8", 2019.

Shapes: B pictures, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.config import WhitenedCnnModel
from fasttrain.models.blocks import activation, init_kaiming, max_pool_2x2

_AT_ONCE = 250  # pictures: their patches take some 100 MB


class WhitenedCNN(nn.Module):
    """Whitening, a group of convolutions for each width, max pooling, a linear layer."""

    def __init__(self, model: WhitenedCnnModel, classes: int) -> None:
        super().__init__()
        self.whitening = Whitening(model.patch, model.epsilon)
        self.activation = activation(model.activation)
        self.groups = nn.Sequential(*_groups(model, self.whitening.outputs))
        self.head = nn.Linear(model.scaled(model.widths[-1]), classes, bias=False)
        self.scale = model.logit_scale

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, classes) logits."""
        features = self.groups(self.activation(self.whitening(images)))
        logits: Tensor = self.head(features.amax(dim=(2, 3))) * self.scale
        return logits

    def look_at(self, images: Tensor) -> None:
        """Learn from (N, 3, H, W) normalised training pictures what patches look like."""
        self.whitening.look_at(images)


class Whitening(nn.Module):
    """Patches of p x p pixels onto their principal axes, each to unit variance, and the negatives.

    The kernels are a buffer: nothing trains them. The bias is a parameter.

    Args:
        patch: p.
        epsilon: Added to the variances, so that noise is not blown up.

    Attributes:
        outputs: Channels: twice as many as there are numbers in a patch.
    """

    weight: Tensor

    def __init__(self, patch: int, epsilon: float) -> None:
        super().__init__()
        numbers = 3 * patch**2
        self._patch, self._epsilon = patch, epsilon
        self.outputs = 2 * numbers
        axes = torch.eye(numbers).view(numbers, 3, patch, patch)
        self.register_buffer("weight", torch.cat([axes, -axes]))
        self.bias = nn.Parameter(torch.zeros(self.outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, outputs, H - p + 1, W - p + 1)."""
        return F.conv2d(images, self.weight, self.bias)

    @torch.no_grad()
    def look_at(self, images: Tensor) -> None:
        """Set the kernels by the patches of (N, 3, H, W) normalised pictures."""
        covariance, count = torch.zeros(1, dtype=torch.float64), 0
        for some in torch.split(images.double(), _AT_ONCE):
            patches = F.unfold(some, self._patch).movedim(1, 2).flatten(0, 1)
            covariance, count = covariance + patches.T @ patches, count + len(patches)
        variances, axes = torch.linalg.eigh(covariance / count)
        kernels = (axes / (variances + self._epsilon).sqrt()).T.flip(0)
        # An eigenvector's sign is anyone's choice: the largest number is made positive.
        largest = kernels.gather(1, kernels.abs().argmax(dim=1, keepdim=True))
        kernels = (kernels * largest.sign()).view(-1, 3, self._patch, self._patch)
        self.weight.copy_(torch.cat([kernels, -kernels]))


def _groups(model: WhitenedCnnModel, inputs: int) -> Iterator[nn.Module]:
    for width in map(model.scaled, model.widths):
        yield _Group(model, inputs, width)
        inputs = width


class _Group(nn.Module):
    """(B, inputs, H, W) to (B, outputs, H / 2, W / 2): pooling follows the first convolution.

    With `residual` what the first convolution led to is added to what the last ones make of it.
    """

    def __init__(self, model: WhitenedCnnModel, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * (model.convolutions - 1)
        self.convolutions = nn.ModuleList(_convolution(model, each, outputs) for each in widths)
        self.norms = nn.ModuleList(_norm(model, outputs) for _ in widths)
        self.activation = activation(model.activation)
        self.residual = model.residual

    def forward(self, images: Tensor) -> Tensor:
        first, *others = zip(self.convolutions, self.norms, strict=True)
        images = entered = self.activation(first[1](max_pool_2x2(first[0](images))))
        for convolution, norm in others[:-1]:
            images = self.activation(norm(convolution(images)))
        if others:
            convolution, norm = others[-1]
            images = norm(convolution(images))
            images = self.activation(images + entered if self.residual else images)
        return images


def _convolution(model: WhitenedCnnModel, inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution; `dirac` passes its first inputs on and draws the rest at random."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        if model.init == "dirac":
            nn.init.dirac_(convolution.weight[: min(inputs, outputs)])
        else:
            init_kaiming(convolution.weight)
    return convolution


def _norm(model: WhitenedCnnModel, channels: int) -> nn.BatchNorm2d:
    """Batch norm; without a scale, which max pooling and activations can do without."""
    norm = nn.BatchNorm2d(channels, momentum=model.norm_momentum)
    if not model.norm_scale:
        norm.weight.requires_grad_(False)
    return norm
