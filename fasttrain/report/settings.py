"""Nested settings as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import yaml

from fasttrain.config import Config
from fasttrain.observe.choosing import flat

_NAMES = {"name", "seed", "track.project"}  # tell runs apart, not what they do


def rows(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """What is set: its name, such as `packages.torch`, and its value."""
    found = flat(tree).items()
    return [(name, _shown(value)) for name, value in found if value not in (None, [], "")]


def differences(configs: Sequence[Config]) -> list[tuple[str, list[str]]]:
    """The settings that not all of them share, section by section, and what each sets them to.

    That is empty where one has no such setting, or sets it to nothing.
    """
    trees = [flat(config.model_dump(mode="json")) for config in configs]
    names = sorted({name for tree in trees for name in tree} - _NAMES)
    found = [(name, [tree.get(name) for tree in trees]) for name in names]
    return [
        (name, [_shown(value) for value in values])
        for name, values in found
        if any(value != values[0] for value in values)
    ]


def _shown(value: object) -> str:
    """As a configuration says it, on one line."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    written = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return written.removesuffix("...\n").rstrip()
