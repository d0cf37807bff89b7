"""Parts that the model families share.

Shapes: B pictures, C channels, H x W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.models.pooling import global_max_pool, max_pool_2x2

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
