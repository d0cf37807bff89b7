"""How small things get from the host to the device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device without waiting for what the device still has to do.

    From memory that is not pinned, CUDA may first let the stream run dry. torch keeps pinned
    memory for as long as the copy reads it.
    """
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)
