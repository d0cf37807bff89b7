"""What a run is: typed, frozen, validated settings.

A configuration is a YAML file of sections, each optional. `load` reads it, applies
`key.path=value` overrides, and refuses anything it does not know, naming the file, the key and
the nearest valid name. Nothing here touches a device, so a bad setting fails in milliseconds.
"""

from fasttrain.config.attention import AttentionCnnModel, Gate, Head, Stage
from fasttrain.config.augment import (
    Augmentation,
    ColorJitter,
    Crop,
    CutMix,
    Cutout,
    Flip,
    MixUp,
    ResizedCrop,
    Rotation,
    TrivialAugment,
    VerticalFlip,
)
from fasttrain.config.data import Data, DatasetName, LoaderName
from fasttrain.config.fields import Duration
from fasttrain.config.layers import Whitening
from fasttrain.config.model import CnnModel, Model, WhitenedCnnModel, WideResnetModel
from fasttrain.config.optim import SGD, AdamW, Ema, Muon, Optim
from fasttrain.config.reading import load, override
from fasttrain.config.schedule import (
    Constant,
    CosineDecay,
    LinearDecay,
    OneCycle,
    Schedule,
    StepDecay,
)
from fasttrain.config.sections import Checkpoint, Config, Track
from fasttrain.config.train import Resize, Train, Tta

__all__ = [
    "SGD",
    "AdamW",
    "AttentionCnnModel",
    "Augmentation",
    "Checkpoint",
    "CnnModel",
    "ColorJitter",
    "Config",
    "Constant",
    "CosineDecay",
    "Crop",
    "CutMix",
    "Cutout",
    "Data",
    "DatasetName",
    "Duration",
    "Ema",
    "Flip",
    "Gate",
    "Head",
    "LinearDecay",
    "LoaderName",
    "MixUp",
    "Model",
    "Muon",
    "OneCycle",
    "Optim",
    "Resize",
    "ResizedCrop",
    "Rotation",
    "Schedule",
    "Stage",
    "StepDecay",
    "Track",
    "Train",
    "TrivialAugment",
    "Tta",
    "VerticalFlip",
    "WhitenedCnnModel",
    "Whitening",
    "WideResnetModel",
    "load",
    "override",
]
