"""A configuration file and its overrides, read into a `Config`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fasttrain.config.explaining import explain
from fasttrain.config.sections import Config
from fasttrain.errors import UserError, nearest


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, in which a key that stands twice is an error and not overwritten."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return node


def load(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration at `path`, if any, and apply `key.path=value` overrides.

    Raises:
        UserError: the file is missing or no YAML, or a key or value is not valid; the message
            names the file (or the override), the key, and the nearest valid name.
    """
    tree = _read_tree(path) if path else {}
    origins: dict[tuple[str, ...], str] = {}
    for override in overrides:
        for keys in _apply_override(tree, override):
            origins[keys] = f"the argument {override!r}"
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, path, origins)) from None


def override(key: str, value: object) -> str:
    """Write an override that `load` reads as this value, which is JSON or a path."""
    text = str(value) if isinstance(value, Path | str) else json.dumps(value)
    try:
        plain = _parse(text) == (text if isinstance(value, Path | str) else value)
    except yaml.YAMLError:
        plain = False
    return f"{key}={text if plain else json.dumps(text, ensure_ascii=False)}"


def _read_tree(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = _found_instead(path)
        raise UserError(f"{path}: there is no such configuration file{hint}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a configuration file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a text file: {error}") from None
    try:
        tree = _parse(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise UserError(f"{path}{line}: not valid YAML: {_problem(error)}") from None
    if tree is None:  # what is meant to have settings may have been cut short
        raise UserError(f"{path}: is empty; write {{}} into it if all defaults are meant")
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a configuration is a mapping of sections, such as 'train:'")
    return tree


def _parse(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except RecursionError:
        raise yaml.MarkedYAMLError(problem="it is nested too deeply") from None
    except ValueError as error:  # what looks like a date and is none
        raise yaml.MarkedYAMLError(problem=str(error)) from None
    except (LookupError, AttributeError):  # PyYAML's own, of a tag such as !!bool
        raise yaml.MarkedYAMLError(problem="a value is not what its tag says") from None


def _problem(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or "it cannot be parsed"


def recipe(path: Path) -> Path | None:
    """The file in `configs/` here that is called like `path`, which has no folder itself."""
    found = Path("configs", path.name).with_suffix(".yaml")
    return found if path.parent == Path() and found.is_file() else None


def _found_instead(path: Path) -> str:
    """A hint for a file that is not there."""
    if found := recipe(path):
        return f"; did you mean {str(found)!r}?"
    folder = path.parent
    names = [entry.name for entry in folder.glob("*.yaml")] if folder.is_dir() else []
    return nearest(path.name, names) or (
        "; name a YAML file: the recipes are in configs/ of the project's folder"
    )


def _apply_override(tree: dict[str, Any], override: str) -> list[tuple[str, ...]]:
    """Set `a.b=value` in `tree`; the value is read as YAML.

    Returns the key path, and that of every section that was not there: what is wrong with them
    is the override's doing.
    """
    path, separator, text = override.partition("=")
    keys = tuple(path.strip().split("."))
    if not separator or not all(keys):
        raise UserError(
            f"{override!r} is not an override; write key.path=value, such as train.epochs=20"
        )
    try:
        value = _parse(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"{override!r}: the value is not valid YAML: {_problem(error)}; quote it"
        ) from None
    node, changed = tree, [keys]
    for depth, key in enumerate(keys[:-1], start=1):
        if node.get(key) is None:  # as `config.yaml` writes a section that is not there
            changed.append(keys[:depth])
            node[key] = {}
        child = node[key]
        if not isinstance(child, dict):
            raise UserError(f"{override!r}: {key!r} is a value, not a section")
        node = child
    node[keys[-1]] = value
    return changed
