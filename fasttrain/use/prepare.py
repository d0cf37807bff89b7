"""`fasttrain data prepare DATASET`: what was found, and the settings that train on it."""

from __future__ import annotations

import io
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from PIL import Image

from fasttrain.config import Config, Data, load, override
from fasttrain.data.folders import PicturesSource
from fasttrain.data.members import contents
from fasttrain.data.pictures import FORMATS
from fasttrain.data.sources import Source, open_source
from fasttrain.data.store import SPLITS, Progress, Store, expand
from fasttrain.data.tree import UndividedError

_OF_THE_SET = ("dataset", "path", "size", "test_share", "split_seed")
_STEPS = 10  # an epoch should have at least
_SHOWN = 8  # sizes; of more only the range
_KINDS = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "palette",
    "PA": "palette with transparency",
    "RGB": "colour",
    "RGBA": "colour with transparency",
    "I;16": "grey of 16 bits",
    "I;16B": "grey of 16 bits",
}


@dataclass(frozen=True)
class Prepared:
    """A data set that was asked for by its name.

    Attributes:
        store: The prepared store.
        rows: What was found in the source beside what the store tells, by its heading.
        settings: The sections of a configuration that trains on it.
    """

    store: Store
    rows: dict[str, str]
    settings: dict[str, Any]

    @property
    def lines(self) -> str:
        """The settings as a configuration file."""
        return yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True)

    @property
    def overrides(self) -> str:
        """The settings of the set as a shell's arguments for `fasttrain train` with any recipe."""
        data = {key: value for key, value in self.settings["data"].items() if key != "batch_size"}
        return shlex.join(override(f"data.{key}", value) for key, value in data.items())


def prepare(overrides: Sequence[str], share: float, progress: Progress) -> Prepared:
    """Prepare a data set that is described by overrides alone.

    Args:
        overrides: The settings that are not left at their defaults.
        share: `data.test_share` where it is needed and not set.
        progress: Is told how far the preparation has come.

    Raises:
        UserError: a setting is not valid, or the data cannot be found or used.
    """
    config, source, store = _open(overrides, share, progress)
    rows = {}
    if isinstance(source, PicturesSource):
        rows = {"each class": _each_class(store)} | _looked_at(source)
    return Prepared(store, rows, _settings(config, store))


def _open(
    overrides: Sequence[str], share: float, progress: Progress
) -> tuple[Config, Source, Store]:
    config = load(None, overrides)
    try:
        return config, *open_source(config.data, progress)
    except UndividedError:
        config = load(None, [*overrides, override("data.test_share", share)])
        return config, *open_source(config.data, progress)


def _each_class(store: Store) -> str:
    """How many pictures the classes have; the extremes where they differ."""
    parts = []
    for split in SPLITS:
        counts = np.bincount(getattr(store, split).labels, minlength=len(store.classes))
        least, most = int(counts.argmin()), int(counts.argmax())
        part = f"{counts[least]:,}"
        if counts[least] != counts[most]:
            part += f" ({store.classes[least]}) to {counts[most]:,} ({store.classes[most]})"
        parts.append(f"{part} {'training' if split == 'train' else 'test'}")
    return ", ".join(parts)


def _looked_at(source: PicturesSource) -> dict[str, str]:
    """The sizes and kinds of the files, from their headers."""
    sizes: Counter[tuple[int, int]] = Counter()
    kinds: Counter[str] = Counter()
    members = [member for split in SPLITS for member, _ in source.pictures(split)]
    for _, content in contents(members):
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            sizes[picture.height, picture.width] += 1
            kinds[_KINDS.get(picture.mode, picture.mode)] += 1
    shown = _counted({f"{height} x {width}": count for (height, width), count in sizes.items()})
    if len(sizes) > _SHOWN:
        sides = [f"{min(found)} to {max(found)}" for found in zip(*sizes, strict=True)]
        shown = f"{len(sizes):,} different ones, {sides[0]} x {sides[1]}"
    if source.target:
        shown += f"; brought to {source.target[0]} x {source.target[1]}"
    converted = "; brought to colour of 8 bits" if set(kinds) != {"colour"} else ""
    return {"sizes": shown, "kinds": _counted(kinds) + converted}


def _counted(found: Mapping[str, int]) -> str:
    """Names with their numbers, the most frequent first."""
    ordered = sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{name} ({count:,})" for name, count in ordered)


def _settings(config: Config, store: Store) -> dict[str, Any]:
    """Those that say which set it is, and those that must fit the number of its pictures."""
    data, named = config.data, config.name
    written = data.model_dump(mode="json")
    found = {
        key: written[key]
        for key in _OF_THE_SET
        if key == "dataset" or written[key] != Data.model_fields[key].default
    }
    if data.path is not None:
        place = expand("data.path", data.path).resolve()
        found["path"] = str(place)
        if "name" not in config.model_fields_set:
            named = re.sub(r"[^A-Za-z0-9._-]+", "-", place.stem).strip("-._")[:80]
    if data.dataset == "folder":
        count = len(store.train.labels)
        chosen = data.model_fields_set
        held_out = data.validation if "validation" in chosen else count // 10
        found["validation"] = held_out
        batch = data.batch_size
        while "batch_size" not in chosen and batch > max(1, (count - held_out) // _STEPS):
            batch //= 2
        found["batch_size"] = batch
    return {"name": named or data.dataset, "data": found}
