"""The pictures of a run, and the batches that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fasttrain.config.augment import Augmentation, augmentation_names, mixes
from fasttrain.config.fields import Real, Section, SizeField, Whole
from fasttrain.errors import nearest

DatasetName = Literal["cifar10", "cifar100", "shapes", "folder"]
LoaderName = Literal["auto", "dali", "resident", "reference"]


class Data(Section):
    """Which pictures, in which batches, changed how.

    `data.pictures` says how pictures are brought to a size.
    """

    dataset: DatasetName = "cifar10"
    """`shapes` is generated, 12,000 pictures of ten shapes; `folder` is pictures of your own."""
    path: Path | None = None
    """The file or folder that holds the data set. null: what `$FASTTRAIN_DATA` says; without that a
    CIFAR set is taken from the cache, or downloaded. `shapes` has none."""
    size: SizeField | None = None
    """Only of `folder`: pixels to which every picture is brought. null: all have one size already,
    or are refused."""
    test_share: Real | None = Field(None, gt=0, lt=1)
    """Only of `folder`, for pictures that are not divided into `train` and `test` yet: the share of
    every class that becomes the test set. null: they must be."""
    split_seed: Whole = Field(0, ge=0, lt=2**63)
    """Only with `test_share`: chooses its pictures, in which `seed` has no part."""
    loader: LoaderName = "auto"
    """Who makes the batches; all make the same. `resident` keeps the set in the device's memory,
    `dali` is NVIDIA's, `reference` is torchvision's, and slow. `auto` is `resident`, but `dali`,
    if installed, where the set at four bytes a pixel takes over an eighth of that memory."""
    batch_size: Whole = Field(512, ge=1)
    """Pictures of a training step, over all processes together, which share them equally. An
    epoch leaves out what does not fill its last batch."""
    validation: Whole = Field(5000, ge=0)
    """Training pictures that are held out, and scored while the run goes; the same ones whatever
    the `seed`. 0: none."""
    workers: Whole = Field(2, ge=0, le=256)
    """For each process of the run: the threads of `dali`, at least 1, or the processes of
    `reference`, which with 0 loads by itself. `resident` has none."""
    augment: tuple[Augmentation, ...] = ()
    """What is done to training pictures, each at most once, and listed in this order. `flip` is
    short for `{name: flip}`."""

    @field_validator("size", "test_share")
    @classmethod
    def _of_a_folder(cls, value: object, info: ValidationInfo) -> object:
        dataset = info.data.get("dataset", "folder")
        if value is not None and dataset != "folder":
            raise ValueError(f"this is for dataset=folder, not for {dataset}; leave it out")
        return value

    @field_validator("split_seed")
    @classmethod
    def _of_a_split(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("test_share", True) is None:
            raise ValueError("this chooses the test_share of each class; set that, too")
        return value

    @field_validator("augment", mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        """Accept `flip` for `[{name: flip}]`, and refuse an unknown name by its nearest."""
        if isinstance(value, str | dict):
            value = [value]
        if not isinstance(value, list | tuple):
            return value
        entries = [{"name": entry} if isinstance(entry, str) else entry for entry in value]
        valid = augmentation_names()
        for entry in entries:
            if isinstance(entry, dict) and (name := entry.get("name")) not in valid:
                hint = nearest(str(name), valid)
                raise ValueError(f"no augmentation is named {name!r}{hint} (known: {valid})")
        return tuple(entries)

    @field_validator("augment")
    @classmethod
    def _each_once(cls, value: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
        order = [augmentation_names().index(entry.name) for entry in value]
        if order != sorted(set(order)):
            raise ValueError(
                f"each augmentation may stand once, in the order {augmentation_names()}"
            )
        return value

    @model_validator(mode="after")
    def _mixing_needs_pairs(self) -> Data:
        if mixes(self.augment) and self.batch_size % 2:
            raise ValueError(
                f"mixup and cutmix mix pictures in pairs, and batch_size={self.batch_size} is "
                "odd; choose an even one"
            )
        return self
