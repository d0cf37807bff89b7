"""Nested settings as rows of a table."""

from __future__ import annotations

import math
from typing import Any

import yaml

from fasttrain.observe.choosing import flat


def rows(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """What is set: its name, such as `packages.torch`, and its value."""
    found = flat(tree).items()
    return [(name, _shown(value)) for name, value in found if value not in (None, [], "")]


def _shown(value: object) -> str:
    """As a configuration says it, on one line."""
    if isinstance(value, str):
        return value
    written = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return written.removesuffix("...\n").rstrip()
