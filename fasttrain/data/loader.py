"""What a loader is, and which one a run gets.

A loader executes a plan: it is given steps and delivers this rank's slices of those batches on
the device. Three do so, and are held equal by `tests/parity`: `dali`, `resident`, `reference`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasttrain.config import LoaderName
from fasttrain.data.augment import Transform
from fasttrain.data.plan import Batch, Plan, Shard, TrainingPlan
from fasttrain.data.store import Split
from fasttrain.data.transfer import to_device
from fasttrain.errors import UserError

ResolvedLoader = Literal["dali", "resident", "reference"]

_SHARE = 0.25  # of a GPU's free memory, that a split may take
# Of all memory, that an unpacked one may take under `auto`: what is free would change the choice,
# and with it the last bits, when a run goes on.
_SHARE_OF_ALL = 0.125


@dataclass(frozen=True)
class Pictures:
    """A rank's slice of a batch, on the device.

    Attributes:
        images: (B, 3, H, W) float32 in channels-last memory (uint8 from a raw transform).
        labels: (B,) int64.
        valid: How many of the first rows count; fewer than B only in the last evaluation batch.
        mixing: (B, 5) float32, how the step is to mix them (see `mixing`), or None.
    """

    images: Tensor
    labels: Tensor
    valid: int
    mixing: Tensor | None = None

    def split(self, share: int) -> list[Pictures]:
        """Cut full batches of `share` pictures out of it, and what is left; nothing is copied."""
        images, labels = torch.split(self.images, share), torch.split(self.labels, share)
        mixing = [None] * len(images) if self.mixing is None else torch.split(self.mixing, share)
        return [
            Pictures(some, named, len(named), mixed)
            for some, named, mixed in zip(images, labels, mixing, strict=True)
        ]


class Loader(Protocol):
    """Executes a plan on a device.

    Attributes:
        name: As in `data.loader`.
        ahead: How many batches may lie ready before they are asked for: what is timed from where
            it stood idle begins with so many for nothing.
    """

    name: str
    ahead: int

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        """Yield this rank's slices of batches `first` to `last - 1`, in order.

        One pass at a time: where another has begun, what is left of this one may be lost.
        """
        ...

    def close(self) -> None:
        """End helper threads and processes; nothing more the second time."""
        ...


def as_tensors(draws: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """What the plan has drawn, as tensors over the same memory."""
    return {name: torch.from_numpy(values) for name, values in draws.items()}


def mixing_of(batch: Batch, device: torch.device) -> Tensor | None:
    """How the pictures of a batch are to be mixed, on the device."""
    if "mixing" not in batch.draws:
        return None
    return to_device(torch.from_numpy(batch.draws["mixing"]), device)


def choose(name: LoaderName, device: torch.device, pixels: int = 0) -> tuple[ResolvedLoader, str]:
    """Settle `auto`; return the loader's name and the reason in a few words.

    `auto` is the resident loader, the fastest that was measured on CPUs and on a GPU, unless the
    set is too large to lie in memory four bytes a pixel.

    Args:
        name: As configured.
        device: Where batches are wanted.
        pixels: Of the whole split.

    Raises:
        UserError: the loader that was asked for is not installed.
    """
    has_dali = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
    if name == "dali" and not has_dali:
        raise UserError(
            "data.loader=dali: DALI is not installed; install nvidia-dali-cuda130 "
            "or choose data.loader=auto"
        )
    if name != "auto":
        return name, "as configured"
    if has_dali and 4 * pixels > _SHARE_OF_ALL * _memory(device):
        return "dali", "the pictures are too many to lie in memory unpacked"
    return "resident", "the fastest that was measured"


def fits(size: int, device: torch.device) -> bool:
    """Whether a split of so many bytes may lie in a GPU's memory, beside all else."""
    return size <= _SHARE * torch.cuda.mem_get_info(device)[0]


def _memory(device: torch.device) -> int:
    """Bytes, free or not."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return psutil.virtual_memory().total


def make_loader(
    name: ResolvedLoader,
    split: Split,
    plan: Plan,
    shard: Shard,
    transform: Transform,
    device: torch.device,
    *,
    compile: bool = True,  # noqa: A002 - the name torch gives it
    workers: int = 2,
) -> Loader:
    """Build the loader of that name; the arguments mean what they mean in `ResidentLoader`.

    `workers` is the number of DALI's threads or of the reference loader's processes.
    """
    if device.type == "cuda":  # DALI asks for its number, and does not know torch's current one
        index = torch.cuda.current_device() if device.index is None else device.index
        device = torch.device("cuda", index)
    match name:
        case "dali":
            from fasttrain.data.dali import DaliLoader

            def make(plan: Plan, shard: Shard) -> Loader:
                return DaliLoader(split, plan, shard, transform, device, workers)

        case "resident":
            from fasttrain.data.resident import ResidentLoader

            def make(plan: Plan, shard: Shard) -> Loader:
                return ResidentLoader(split, plan, shard, transform, device, compile)

        case "reference":
            from fasttrain.data.reference import ReferenceLoader

            return ReferenceLoader(split, plan, shard, transform, device, workers)
    if device.type != "cuda" or not isinstance(plan, TrainingPlan):
        return make(plan, shard)
    from fasttrain.data.groups import GroupLoader, Groups, batches_at_once

    size = (split.images.shape[1], split.images.shape[2])
    at_once = batches_at_once(plan, shard.share(plan.batch_size), size)
    return GroupLoader(Groups(plan, shard, at_once), make)
