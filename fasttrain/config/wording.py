"""What a setting takes, and its default, in the words with which a user types them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from fasttrain.config.fields import Duration, Section, Words, sections_in, tag_of

_NOUNS = {int: "whole number", float: "number", str: "text", Path: "path"}
_LIMITS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length")
_MOST = 10**9  # larger limits are powers of two
_DIGITS = 8  # of a number; more are cut off


def kind(field: FieldInfo) -> str:
    """What a setting takes, such as `auto, or whole number from 1`."""
    return _listed(_alternatives(field))


def _listed(words: Sequence[str]) -> str:
    """`a, b or c`; one that is longer than a word is set apart by a comma."""
    *others, last = words
    if not others:
        return last
    comma = "," if any(" " in word for word in words) else ""
    return f"{', '.join(others)}{comma} or {last}"


def sections_of(field: FieldInfo) -> list[type[Section]]:
    """The sections that a setting may hold; a duration is a value."""
    return [section for section in sections_in(field.annotation) if section is not Duration]


def is_list(field: FieldInfo) -> bool:
    """Whether a setting holds a list."""
    return get_origin(field.annotation) is tuple


def is_tag(field: FieldInfo) -> bool:
    """Whether a setting does no more than to tell its section from others."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _alternatives(field: FieldInfo, around: Iterable[Any] = ()) -> list[str]:
    """Each form that a value may have; the limits `around` hold for all of them."""
    here = field.annotation
    tags = [tag_of(section) for section in sections_of(field)]
    if not is_list(field) and len(tags) > 1:
        return tags
    if get_origin(here) in (Union, UnionType):
        parts = map(FieldInfo.from_annotation, get_args(here))
        return [word for part in parts for word in _alternatives(part, field.metadata)]
    if here is NoneType:
        return ["null"]
    if here is bool:
        return ["true", "false"]
    if get_origin(here) is Literal:
        return [str(choice) for choice in get_args(here)]
    limits = _limits([*field.metadata, *around])
    return [_list(field, limits) if is_list(field) else _noun(field) + _range(limits)]


def _list(field: FieldInfo, limits: Mapping[str, Any]) -> str:
    """A list, how long it is, and what its entries are."""
    parts = get_args(field.annotation)
    entry = FieldInfo.from_annotation(parts[0])
    tags = [tag_of(section) for section in sections_of(entry)]
    if len(tags) > 1:
        return f"list of {_listed(tags)}"
    entries = f"{_noun(entry)}s{_range(_limits(entry.metadata))}"
    if said := _said(field):
        return said.format(entries)
    counts = {"min_length": "one or more ", "max_length": f"at most {limits.get('max_length')} "}
    count = "".join(words for limit, words in counts.items() if limit in limits)
    return f"list of {count if parts[-1] is ... else f'{len(parts)} '}{entries}"


def _noun(field: FieldInfo) -> str:
    return _said(field) or ("section" if sections_of(field) else _NOUNS[field.annotation])  # type: ignore[index]


def _said(field: FieldInfo) -> str:
    """What the type itself says that its values are called; of several the outermost."""
    return next((each.text for each in reversed(field.metadata) if isinstance(each, Words)), "")


def _limits(metadata: Iterable[Any]) -> dict[str, Any]:
    return {
        name: getattr(each, name) for each in metadata for name in _LIMITS if hasattr(each, name)
    }


def _range(limits: Mapping[str, Any]) -> str:
    """The limits of a number, or of a text's length."""
    words = {
        "ge": " from {}",
        "gt": " above {}",
        "le": " to {}" if "ge" in limits else ", at most {}",
        "lt": ", below {}",
        "multiple_of": ", a multiple of {}",
        "min_length": ", not empty",
        "max_length": " of at most {} characters",
    }
    return "".join(words[name].format(_limit(limits[name])) for name in _LIMITS if name in limits)


def _limit(value: float) -> str:
    return f"2^{int(value).bit_length() - 1}" if value > _MOST else f"{value}"


def typed(value: object) -> str:
    """A value as a user types it; `...` stands where a number goes on."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return _number(value)
        case Section() if not isinstance(value, Duration):
            return f"{{{', '.join(f'{key}: {typed(each)}' for key, each in _own(value).items())}}}"
        case tuple():
            return f"[{', '.join(map(typed, value))}]"
        case _:
            return str(value)


def _number(value: float) -> str:
    whole = repr(value).replace("e-0", "e-")
    return whole if len(whole) <= _DIGITS else f"{value:.4g}..."


def _own(section: Section) -> dict[str, object]:
    """What of a section must be typed: what tells it from others, and what is not a default."""
    values = {key: getattr(section, key) for key in type(section).model_fields}
    return {
        key: values[key]
        for key, field in type(section).model_fields.items()
        if is_tag(field) or values[key] != field.default
    }
