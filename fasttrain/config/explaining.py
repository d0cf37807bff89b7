"""What is wrong with a configuration, in one line."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fasttrain.config.fields import Section, sections_in, tag_of
from fasttrain.config.sections import Config
from fasttrain.errors import nearest

# What pydantic adds to the place of a union's error.
_ALTERNATIVES = ("literal['auto']", "bool", "constrained-int")

# Plain words for a library's, by the kind of a problem; only `name` has a pattern.
_WORDS = {
    "bool_parsing": "Input should be true or false",
    "bool_type": "Input should be true or false",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-' may stand here, a letter or "
    "digit first",
    "too_long": "the list is too long, it takes {max_length} or fewer",
    "too_short": "the list is too short, it needs {min_length} or more",
    "tuple_type": "Input should be a list",
}

_SYNONYMS = {"gpu": "cuda"}  # where the nearest name would be another thing

Sections = list[type[Section]]


def explain(error: ValidationError, path: Path | None, origins: dict[tuple[str, ...], str]) -> str:
    """One line for all that is wrong, each with its place and its mend."""
    problems = _as_one(error.errors())
    lines = []
    for problem in problems:
        if _is_echo(problem, problems):
            continue
        keys, sections = _locate(problem["loc"])
        if problem["type"] == "union_tag_invalid":  # pydantic places it at the whole section
            keys = (*keys, problem["ctx"]["discriminator"].strip("'"))
        at = max((at for at in origins if keys[: len(at)] == at), key=len, default=None)
        origin = origins[at] if at else str(path)
        lines.append(f"{origin}: {_explain_one(problem, keys, sections)}")
    return "; ".join(dict.fromkeys(lines))


def _as_one(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """A value that is none of the forms which a setting may have is one mistake, not several."""
    found: dict[tuple[int | str, ...], ErrorDetails] = {}
    for problem in problems:
        place, words = problem["loc"], _WORDS.get(problem["type"])
        message = words.format(**problem.get("ctx", {})) if words else problem["msg"]
        # A key that is not known may be called anything.
        if problem["type"] != "extra_forbidden" and place and place[-1] in _ALTERNATIVES:
            place = place[:-1]
        if place in found:
            found[place]["msg"] += f", or {message.removeprefix('Input should be ')}"
        else:
            found[place] = {**problem, "loc": place, "msg": message}
    return list(found.values())


def _is_echo(problem: ErrorDetails, problems: list[ErrorDetails]) -> bool:
    """A list is called too short because its entries are wrong, which is said already."""
    place = problem["loc"]
    inside = [other for other in problems if other["loc"][: len(place)] == place != other["loc"]]
    return problem["type"] == "too_short" and bool(inside)


def _explain_one(problem: ErrorDetails, keys: tuple[str, ...], sections: Sections) -> str:
    dotted = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        valid = list(dict.fromkeys(key for section in sections for key in section.model_fields))
        hint = _elsewhere(keys) or nearest(keys[-1], valid)
        return f"unknown key {dotted!r}{hint} (known here: {', '.join(valid)})"
    if problem["type"] in ("model_type", "model_attributes_type"):
        return f"{dotted}: a section of settings belongs here (it is {problem['input']!r})"
    if problem["type"] == "union_tag_invalid":
        return _explain_tag(problem["ctx"], dotted)
    message = " ".join(problem["msg"].removeprefix("Value error, ").split())
    value = problem.get("input")
    shown = "" if isinstance(value, dict | Section) else f" (it is {value!r})"
    if problem["type"] == "literal_error":
        meant = _SYNONYMS.get(str(value), str(value))
        shown += nearest(meant, _quoted(problem["ctx"]["expected"]))
    return f"{dotted or 'configuration'}: {message[0].lower()}{message[1:]}{shown}"


def _elsewhere(keys: tuple[str, ...]) -> str:
    """A hint at the sections that have a key of this name, for one outside all or in a wrong one.

    Another kind of the same section may have it: no hint then, as its place is right.
    """
    found = homes(keys[-1]) if len(keys) <= 2 else []
    if not found or ".".join(keys) in found:
        return ""
    return f"; did you mean {' or '.join(map(repr, found))}?"


def homes(key: str) -> list[str]:
    """Where settings of this name belong, such as `optim.lr`; sections within others do not count.

    Empty where there is none.
    """
    found = [
        f"{name}.{key}"
        for name, field in Config.model_fields.items()
        for section in sections_in(field.annotation)
        if key in section.model_fields
    ]
    return [key] if key in Config.model_fields else list(dict.fromkeys(found))


def _explain_tag(context: dict[str, str], dotted: str) -> str:
    """The key that tells sections apart names none of them."""
    tag, expected = context["tag"], context["expected_tags"]
    hint = nearest(tag, _quoted(expected))
    return f"{dotted}: input should be one of {expected} (it is {tag!r}){hint}"


def _quoted(text: str) -> list[str]:
    """The names that stand in single quotes."""
    return re.findall("'([^']*)'", text)


def _locate(place: tuple[int | str, ...]) -> tuple[tuple[str, ...], Sections]:
    """Follow a place that pydantic names through the types of the sections.

    Where a setting may be one of several sections, pydantic puts the chosen one's tag into the
    place. A file has no such key, so it is left out; in a list it stays, to tell which entry.

    Returns:
        The keys as a file has them, and the sections that the last key may belong to.
    """
    keys: list[str] = []
    here: Sections = [Config]
    owners: Sections = [Config]
    for part in place:
        chosen = [section for section in here if len(here) > 1 and tag_of(section) == part]
        if chosen:
            here = chosen
            if not keys[-1].isdigit():
                continue
        elif not isinstance(part, int):
            owners = here
            fields = [section.model_fields.get(part) for section in here]
            here = [inner for field in fields if field for inner in sections_in(field.annotation)]
        keys.append(str(part))
    return tuple(keys), owners
