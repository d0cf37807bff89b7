"""Parts that the model families share.

Shapes: B pictures, C channels, H x W pixels.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.models.pooling import global_max_pool, max_pool_2x2

_PIXELS = (1, 3, 4)  # of ghost batches, (G, B', C, H, W)
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "none": nn.Identity,
}


class Pool(nn.Module):
    """(B, C, H, W) to (B, C, H / 2, W / 2) by `max` or `mean`; `none` leaves it as it is."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        """Pool (B, C, H, W)."""
        match self.kind:
            case "max":
                return max_pool_2x2(images)
            case "mean":
                return F.avg_pool2d(images, 2)
            case _:
                return images


def activation(name: str) -> nn.Module:
    """The activation of that name; `none` is the identity."""
    return _ACTIVATIONS[name]()


def norm(channels: int, wanted: bool = True) -> nn.Module:
    """Batch norm (Ioffe and Szegedy, arXiv 1502.03167, section 3), or the identity."""
    return nn.BatchNorm2d(channels) if wanted else nn.Identity()


class _GhostNorm(torch.autograd.Function):
    """Batch norm of each of G ghost batches, (G, B', C, H, W), and the statistics it went by.

    Its gradient in closed form (Ioffe and Szegedy, section 3): two sums over the pixels, taken
    together, and one pass. Derived step by step it is more sums, and copies in full precision.
    """

    @staticmethod
    def forward(
        ctx: Any, ghosts: Tensor, weight: Tensor, bias: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        values = ghosts.float()
        variance, mean = torch.var_mean(values, dim=_PIXELS, correction=0, keepdim=True)
        inverse = torch.rsqrt(variance + epsilon)
        scale = weight[:, None, None] * inverse
        ctx.save_for_backward(ghosts, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        found = (values - mean) * scale + bias[:, None, None]
        # Not `to` where it changes nothing: with that, torch 2.11 compiles gradients of zero.
        return found if found.dtype == ghosts.dtype else found.to(ghosts.dtype), mean, variance

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor, _mean: Tensor, _variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        ghosts, weight, mean, inverse = ctx.saved_tensors
        slopes, normalised = gradient.float(), (ghosts.float() - mean) * inverse
        sums = slopes.sum(dim=_PIXELS, keepdim=True)
        products = (slopes * normalised).sum(dim=_PIXELS, keepdim=True)
        count = ghosts[0, :, 0].numel()
        centred = slopes - sums / count - normalised * (products / count)
        own = (weight[:, None, None] * inverse * centred).to(ghosts.dtype)
        return own, products.sum(dim=0).flatten(), sums.sum(dim=0).flatten(), None


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that takes every `ghost_batch` pictures for a batch of their own.

    Hoffer, Hubara and Soudry, "Train longer, generalize better", arXiv 1705.08741, algorithm 1.
    In training it puts out the same, but for rounding, however many ghost batches it is given at a
    time, and on however many ranks; the running statistics follow a rank's own, one by one.

    Args:
        channels: C.
        ghost_batch: B', pictures; fewer in all are one ghost batch.
        momentum: The share of a ghost batch in the running statistics.
    """

    def __init__(self, channels: int, ghost_batch: int, momentum: float = 0.1) -> None:
        super().__init__(channels, momentum=momentum)
        self.ghost_batch = ghost_batch

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B, C, H, W); in training B is a multiple of B', or less than it.

        Raises:
            ValueError: it is neither.
        """
        if not self.training or len(images) <= self.ghost_batch:
            return super().forward(images)
        if len(images) % self.ghost_batch:
            raise ValueError(
                f"{len(images)} pictures are no whole number of ghost batches of {self.ghost_batch}"
            )
        ghosts = images.view(-1, self.ghost_batch, *images.shape[1:])
        normalised, mean, variance = _GhostNorm.apply(ghosts, self.weight, self.bias, self.eps)
        self._follow(mean, variance, ghosts[0, :, 0].numel())
        flat: Tensor = normalised.flatten(0, 1)
        return flat

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Let the running statistics follow (G, 1, C, 1, 1) ones, each of `count` numbers."""
        share, groups = cast(float, self.momentum), len(mean)
        later = torch.arange(groups - 1, -1, -1, device=mean.device)
        shares = (share * (1 - share) ** later)[:, None]
        unbiased = variance * (count / (count - 1))
        for name, seen in (("running_mean", mean), ("running_var", unbiased)):
            # Not as a matrix product: autocast would round it to bfloat16.
            total = (shares * seen.flatten(1)).sum(dim=0)
            self.get_buffer(name).mul_((1 - share) ** groups).add_(total)
        self.get_buffer("num_batches_tracked").add_(groups)


def dropout(rate: float, of: str = "values") -> nn.Module:
    """Zero random `values` or whole `channels` of each picture with probability `rate`.

    Values: Srivastava et al., JMLR 15 (2014), section 4. Channels: Tompson et al., "Efficient
    Object Localization Using Convolutional Networks", arXiv 1411.4280, section 3.2; they need a
    random number for each channel, not for each pixel, which counts on a CPU.
    """
    if rate == 0:
        return nn.Identity()
    return nn.Dropout2d(rate) if of == "channels" else nn.Dropout(rate)


def init_kaiming(weight: Tensor, activated: bool = True) -> None:
    """Fill a kernel so that activations keep their variance over depth (in place).

    He et al., "Delving Deep into Rectifiers", arXiv 1502.01852, section 2.2; the gain of ReLU
    serves GELU and SiLU, too.
    """
    nn.init.kaiming_normal_(weight, nonlinearity="relu" if activated else "linear")


class SqueezeExcite(nn.Module):
    """Scale each channel by what the means of all channels say about it.

    Hu et al., "Squeeze-and-Excitation Networks", arXiv 1709.01507, section 3.

    Args:
        channels: C.
        reduction: The hidden layer has C / reduction units, at least 1.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, images: Tensor) -> Tensor:
        """Scale (B, C, H, W)."""
        hidden = F.relu(self.squeeze(images.mean(dim=(2, 3))))
        scale = torch.sigmoid(self.excite(hidden)).to(images.dtype)
        return images * scale[:, :, None, None]


class StochasticDepth(nn.Module):
    """Leave a residual branch out for random pictures while training.

    Huang et al., "Deep Networks with Stochastic Depth", arXiv 1603.09382, section 3, for each
    picture on its own; what stays is scaled up, so that evaluation needs no change.

    Args:
        rate: Probability that a picture goes without the branch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, images: Tensor) -> Tensor:
        """Keep or zero each picture of (B, C, H, W)."""
        if not self.training or self.rate == 0:
            return images
        shape = (len(images), 1, 1, 1)
        kept = torch.rand(shape, device=images.device) >= self.rate
        return images * (kept / (1 - self.rate)).to(images.dtype)


class Head(nn.Module):
    """Pool (B, C, H, W) over its pixels, then fully connected layers to (B, classes) logits.

    Lin et al., "Network In Network", arXiv 1312.4400, section 3.2, with a linear layer.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        pool: str = "mean",
        hidden: tuple[int, ...] = (),
        activate: str = "relu",
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.pool = pool
        widths = (channels, *hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, hidden, strict=False):
            layers += [nn.Linear(inputs, outputs), activation(activate)]
        self.layers = nn.Sequential(*layers, dropout(drop), nn.Linear(widths[-1], classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, classes) logits."""
        pooled = images.mean(dim=(2, 3)) if self.pool == "mean" else global_max_pool(images)
        logits: Tensor = self.layers(pooled)
        return logits
