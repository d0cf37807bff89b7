"""What is wrong with a configuration, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fasttrain.config.augment import Augmentation, augmentation_names
from fasttrain.config.fields import Section
from fasttrain.config.sections import Config
from fasttrain.errors import nearest

_ALTERNATIVES = ("literal['auto']", "bool")  # what pydantic adds to the place of a union's error


def explain(error: ValidationError, path: Path, origins: dict[tuple[str, ...], str]) -> str:
    """One line for all that is wrong, each with its place and its mend."""
    lines = []
    for problem in error.errors():
        keys = tuple(str(part) for part in problem["loc"] if part not in _ALTERNATIVES)
        at = max((at for at in origins if keys[: len(at)] == at), key=len, default=None)
        origin = origins[at] if at else str(path)
        lines.append(f"{origin}: {_explain_one(problem, keys)}")
    return "; ".join(dict.fromkeys(lines))


def _explain_one(problem: Any, keys: tuple[str, ...]) -> str:
    dotted = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        valid = _valid_keys(keys[:-1])
        return f"unknown key {dotted!r}{nearest(keys[-1], valid)} (known here: {', '.join(valid)})"
    if problem["type"] == "model_type":
        return f"{dotted}: a section of settings belongs here (it is {problem['input']!r})"
    message = " ".join(problem["msg"].removeprefix("Value error, ").split())
    value = problem.get("input")
    shown = "" if isinstance(value, dict | Section) else f" (it is {value!r})"
    return f"{dotted or 'configuration'}: {message[0].lower()}{message[1:]}{shown}"


def _valid_keys(path: tuple[str, ...]) -> list[str]:
    """The keys that are valid at `path`, found by walking the sections' types."""
    section: type[BaseModel] = Config
    for key in path:
        if key in augmentation_names():
            members = get_args(get_args(Augmentation)[0])
            section = members[augmentation_names().index(key)]
        elif key in section.model_fields:
            annotation = section.model_fields[key].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                section = annotation
    return list(section.model_fields)
