"""The whole of a configuration, and how a run is kept and followed."""

from __future__ import annotations

from typing import Literal

import yaml
from pydantic import Field

from fasttrain.config.data import Data
from fasttrain.config.fields import Duration, DurationField, Section, Whole
from fasttrain.config.model import CnnModel, Model
from fasttrain.config.optim import SGD, Optim
from fasttrain.config.schedule import Constant, Schedule
from fasttrain.config.train import Train


class Checkpoint(Section):
    """When the state of a run is written, and how many of them stay."""

    every: DurationField | None = Duration(value=1, unit="epochs")
    """How often the state is written; at the end and when a signal stops the run it is, too. null:
    only then."""
    keep: Whole = Field(2, ge=1)
    """How many of the newest checkpoints stay."""
    best: bool = True
    """Whether the best of those stays, too, that were written right after a validation."""


class Track(Section):
    """Where the figures go beside the run folder's own journal."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "disabled"
    """Weights & Biases: `auto` is `online` where an API key is configured, else `offline`, which
    keeps the figures in the run folder to be sent later."""
    project: str = Field("fasttrain", min_length=1)
    """The project in Weights & Biases."""
    report: Literal["auto"] | bool = "auto"
    """Whether `report.html` is drawn while the run goes. `auto` does where the extra `report` is
    installed and the environment does not say `FASTTRAIN_REPORT=0`."""
    metrics_port: Whole | None = Field(None, ge=0, le=65535)
    """The port of the main process's `/metrics` for Prometheus and `/healthz`, on all addresses of
    the machine; it needs the extra `metrics`. 0: any free one. null: none."""


class Config(Section):
    """Everything that decides a run, but where it is written."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """Names the run and its folder, `runs/<name>-<time>`: letters, digits, `.`, `_` and `-`, the
    first a letter or digit."""
    seed: Whole = Field(0, ge=0, lt=2**63)
    """Decides the first weights, the order of the pictures and all that is drawn at random, but not
    which pictures are held out."""
    data: Data = Data()
    model: Model = CnnModel()
    """The network; each family has settings of its own."""
    optim: Optim = SGD()
    """The optimiser; each has settings of its own."""
    schedule: Schedule = Constant()
    """How the learning rate changes over the run."""
    train: Train = Train()
    checkpoint: Checkpoint = Checkpoint()
    track: Track = Track()

    def to_yaml(self) -> str:
        """The whole configuration, every default written out, as `load` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
