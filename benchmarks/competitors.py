"""The loaders that most projects use, on the same pictures: torchvision's transforms, and timm.

`light` augmentation pads, crops and flips; `heavy` adds TrivialAugment and a cut-out. timm has no
crop of a padded picture: it resizes a random crop, and its heavy form is RandAugment with random
erasing, as its own recipes have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.transforms import v2

from fasttrain.data.store import Split

Strength = Literal["light", "heavy"]
Batches = Callable[[], Iterator[Any]]  # an epoch of (images, labels) on the device, and another
_Change = Callable[[Any], Any]
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
_CUT: dict[str, Any] = {
    "p": 1.0,
    "scale": (1 / 16, 1 / 16),
    "ratio": (1.0, 1.0),
}  # 8 x 8 of 32 x 32 pixels


def competitors(
    split: Split, strength: Strength, batch: int, workers: Iterable[int], device: torch.device
) -> Iterator[tuple[str, Batches]]:
    """Every competitor with each number of helper processes.

    timm's is left out where it is not installed. They start with the first batch that is asked for
    and end with the iterator, so that the others have the machine for themselves.
    """
    for helpers in workers:
        named = {
            "torchvision v1": partial(_torchvision, _pil_pictures(split, strength)),
            "torchvision v2": partial(_torchvision, _tensor_pictures(split, strength)),
        }
        if find_spec("timm"):
            named["timm"] = partial(_timm, split, strength)
        for name, make in named.items():
            yield f"{name}, {helpers} workers", partial(make, batch, helpers, device)


def _torchvision(
    pictures: _Pictures, batch: int, workers: int, device: torch.device
) -> Iterator[Any]:
    loader = DataLoader(
        pictures, batch, shuffle=True, num_workers=workers, drop_last=True,
        persistent_workers=workers > 0, pin_memory=device.type == "cuda",
    )  # fmt: skip
    while True:
        for images, labels in loader:
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _timm(
    split: Split, strength: Strength, batch: int, workers: int, device: torch.device
) -> Iterator[Any]:
    from timm.data.loader import create_loader

    heavy: dict[str, Any] = {"auto_augment": "rand-m9-inc1", "re_prob": 1.0}
    if strength == "light":
        heavy = {}
    pictures: Any = _Pictures(split, Image.fromarray)
    loader = create_loader(
        pictures, (3, 32, 32), batch, is_training=True, scale=(0.8, 1.0),
        color_jitter=0.0, mean=_shares(MEAN), std=_shares(STD), num_workers=workers, device=device,
        pin_memory=device.type == "cuda", persistent_workers=workers > 0, **heavy,
    )  # fmt: skip
    while True:
        yield from loader  # puts them on the device itself


class _Pictures(Dataset[tuple[Any, int]]):
    """Pictures through a transform, one at a time."""

    def __init__(
        self,
        split: Split,
        read: Callable[[Any], Any],
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self._split, self._read, self.transform = split, read, transform

    def __len__(self) -> int:
        return len(self._split.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = self._read(self._split.images[index])
        if self.transform is not None:
            picture = self.transform(picture)
        return picture, int(self._split.labels[index])


def _shares(values: tuple[float, float, float]) -> tuple[float, ...]:
    return tuple(value / 255 for value in values)


def _pil_pictures(split: Split, strength: Strength) -> _Pictures:
    """The transforms of countless CIFAR-10 scripts, on PIL pictures."""
    first: list[Any] = [v1.TrivialAugmentWide()]
    last: list[Any] = [v1.RandomErasing(**_CUT)]
    if strength == "light":
        first, last = [], []
    steps = [*first, v1.RandomCrop(32, padding=4), v1.RandomHorizontalFlip(), v1.ToTensor()]
    normalize = v1.Normalize(_shares(MEAN), _shares(STD))
    return _Pictures(split, Image.fromarray, v1.Compose([*steps, normalize, *last]))


def _tensor_pictures(split: Split, strength: Strength) -> _Pictures:
    """What torchvision recommends today: its second transforms, on uint8 tensors."""
    first: list[Any] = [v2.TrivialAugmentWide()]
    last: list[Any] = [v2.RandomErasing(**_CUT)]
    if strength == "light":
        first, last = [], []
    steps = [*first, v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]
    floats = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(_shares(MEAN), _shares(STD))]
    return _Pictures(
        split,
        lambda image: torch.from_numpy(image).permute(2, 0, 1),
        v2.Compose([*steps, *floats, *last]),
    )
