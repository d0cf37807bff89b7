"""The sections of a configuration, and the whole of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

from fasttrain.config.augment import Augmentation, augmentation_names, mixes
from fasttrain.config.fields import (
    AutoCount,
    Duration,
    DurationField,
    MinutesField,
    Real,
    Section,
    SizeField,
    StepsField,
    Whole,
)
from fasttrain.config.model import CnnModel, Model
from fasttrain.config.optim import SGD, Ema, Optim
from fasttrain.config.schedule import Constant, Schedule
from fasttrain.errors import nearest

DatasetName = Literal["cifar10", "cifar100", "shapes", "folder"]
LoaderName = Literal["auto", "dali", "resident", "reference"]
Tta = Literal["none", "flip", "shift"]


class Data(Section):
    """Which pictures, in which batches, changed how.

    Three settings are for `dataset: folder` only. `size` is the side of a square, or `[height,
    width]`, to which every picture is brought (`data.pictures` says how); without it all must have
    one size. `test_share` is for pictures that lie at `<class>/<picture>`: the share of every
    class that is the test set, chosen by `split_seed`; without it `train` and `test` must be there.
    """

    dataset: DatasetName = "cifar10"
    path: Path | None = None
    size: SizeField | None = None
    test_share: Real | None = Field(None, gt=0, lt=1)
    split_seed: Whole = Field(0, ge=0, lt=2**63)
    loader: LoaderName = "auto"
    batch_size: Whole = Field(512, ge=1)
    validation: Whole = Field(5000, ge=0)
    workers: Whole = Field(2, ge=0, le=256)
    augment: tuple[Augmentation, ...] = ()

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
            name = entry.get("name") if isinstance(entry, dict) else None
            if isinstance(entry, dict) and name not in valid:
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


class Resize(Section):
    """Pictures of `scale` times their sides, until that moment of the run."""

    scale: Real = Field(gt=0, lt=1)
    until: StepsField


class Train(Section):
    """How long, in which arithmetic, how often to look, and what to do when it goes wrong.

    `on_divergence` says what follows a loss or gradient that is not a finite number: `stop` the
    run; `skip` the update of that step; or `rollback` to the last good checkpoint and go on behind
    the bad batch, at most `rollbacks` times (Chowdhery et al., "PaLM", arXiv 2204.02311, section
    5.1). `tta` is how an evaluation looks at a picture (`training.views`). `watchdog` is how long a
    step may take before the process is taken for hung. `exchange` is the arithmetic in which
    gradients are summed over the ranks: bf16 sends half as many bytes, for slow networks.
    `accumulate` is in how many parts a step takes its batch: more need less memory. `auto` is one,
    but on a CPU one for each `model.ghost_batch` or few of them, which changes no result but for
    rounding. `cuda_graphs` hands a whole step to the GPU as one piece, not kernel by kernel; `auto`
    does where it can be done: compiled, on one GPU, in one part, with memory to spare.
    """

    epochs: Whole = Field(10, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "bf16"
    compile: Literal["auto"] | bool = "auto"
    cuda_graphs: Literal["auto"] | bool = "auto"
    channels_last: bool = True
    deterministic: bool = False
    accumulate: AutoCount = 1
    clip_norm: Real | None = Field(None, gt=0)
    label_smoothing: Real = Field(0.0, ge=0, lt=1)
    resize: tuple[Resize, ...] = Field((), max_length=6)  # torch keeps 8 graphs of a function
    tta: Tta = "none"
    ema: Ema | None = None
    log_every: StepsField = Duration(value=50, unit="steps")
    evaluate_every: StepsField = Duration(value=1, unit="epochs")
    exchange: Literal["fp32", "bf16"] = "fp32"
    processes: Whole | None = Field(None, ge=1)
    on_divergence: Literal["stop", "skip", "rollback"] = "stop"
    rollbacks: Whole = Field(3, ge=1, le=100)
    watchdog: MinutesField | None = Duration(value=30, unit="min")


class Checkpoint(Section):
    """When the state of a run is written, and how many of them stay.

    The newest `keep` stay and, with `best`, the one with the highest validation accuracy.
    """

    every: DurationField | None = Duration(value=1, unit="epochs")
    keep: Whole = Field(2, ge=1)
    best: bool = True


class Track(Section):
    """Where the figures go beside the run folder's own journal.

    `report` draws `report.html` while the run goes; `auto` does where the packages for it are
    installed and the environment does not say `FASTTRAIN_REPORT=0`.
    `metrics_port` is where the main rank serves `/metrics` and `/healthz`; 0 takes any free port.
    """

    wandb: Literal["auto", "online", "offline", "disabled"] = "disabled"
    project: str = Field("fasttrain", min_length=1)
    report: Literal["auto"] | bool = "auto"
    metrics_port: Whole | None = Field(None, ge=0, le=65535)


class Config(Section):
    """Everything that decides a run, but where it is written."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    seed: Whole = Field(0, ge=0, lt=2**63)
    data: Data = Data()
    model: Model = CnnModel()
    optim: Optim = SGD()
    schedule: Schedule = Constant()
    train: Train = Train()
    checkpoint: Checkpoint = Checkpoint()
    track: Track = Track()

    def to_yaml(self) -> str:
        """The whole configuration, every default written out, as `load` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
