"""What settings are made of: closed sections, numbers, durations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

Unit = Literal["steps", "epochs", "min", "%"]

_LONGEST = 1_000_000  # minutes, which any clock can count
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(steps?|epochs?|min|%)")


@dataclass(frozen=True)
class Words:
    """Stands in a type that checks its values by itself: what a help text calls such a value.

    `{}` is where a list's entries are named.
    """

    text: str


def _no_truth(value: object) -> object:
    if isinstance(value, bool):  # would count as 1 or 0
        raise ValueError("input should be a number, not yes or no")
    return value


def _held(limit: float, form: str) -> AfterValidator:
    """Refuses numbers that would fail only where they are handed to torch."""

    def check(value: float) -> float:
        if abs(value) >= limit:
            raise ValueError(f"{form} holds no number so large")
        return value

    return AfterValidator(check)


Whole = Annotated[int, BeforeValidator(_no_truth), _held(2**63, "int64")]
Real = Annotated[float, BeforeValidator(_no_truth), _held(2.0**128, "float32")]
Share = Annotated[Real, Field(ge=0, lt=1)]
AutoCount = Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], BeforeValidator(_no_truth)]


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


def sections_in(annotation: Any) -> list[type[Section]]:
    """The sections in a type: itself, or those of a union or a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def tag_of(section: type[Section]) -> str:
    """The name that tells a section from the others of its union, which is its first field."""
    return str(next(iter(section.model_fields.values())).default)


class Duration(Section):
    """A length of training in a unit people use: `20steps`, `2epochs`, `5min`, `10%`.

    `training.schedule.to_steps` is the one place that turns it into steps.
    """

    value: Real = Field(ge=0)
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read `"<number><unit>"`; raises `ValueError` with the accepted forms."""
        match = _DURATION.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"{text!r} is not a duration; write a number and a unit, "
                "such as 20steps, 2epochs, 5min or 10%"
            )
        value, unit = match.groups()
        unit = {"step": "steps", "epoch": "epochs"}.get(unit, unit)
        if unit == "steps" and "." in value:
            raise ValueError(f"{text!r}: a number of steps is whole")
        return cls.model_validate({"value": float(value), "unit": unit})

    def __str__(self) -> str:
        return f"{Decimal(str(self.value)).normalize():f}{self.unit}"


def _as_duration(value: object) -> object:
    return value if isinstance(value, Duration) else Duration.parse(str(value))


def _countable(value: Duration) -> Duration:
    if value.unit == "min":
        raise ValueError("this is counted in steps, epochs or %, not in minutes")
    return value


def _timed(value: Duration) -> Duration:
    if value.unit != "min" or not 0 < value.value <= _LONGEST:
        raise ValueError(f"this is a time of at most {_LONGEST}min, such as 10min or 0.5min")
    return value


DurationField = Annotated[
    Duration,
    BeforeValidator(_as_duration),
    PlainSerializer(str),
    Words("duration such as 20steps, 2epochs, 10% or 5min"),
]
StepsField = Annotated[
    DurationField, AfterValidator(_countable), Words("duration such as 20steps, 2epochs or 10%")
]
MinutesField = Annotated[DurationField, AfterValidator(_timed), Words("minutes such as 5min")]


def _as_size(value: object) -> tuple[int, ...]:
    sides = tuple(value) if isinstance(value, list | tuple) else (value, value)
    whole = [side for side in sides if type(side) is int and 8 <= side <= 512]
    if len(sides) != 2 or len(whole) != 2:
        raise ValueError("a size is the side of a square, or [height, width], of 8 to 512 pixels")
    return tuple(whole)


# Height and width in pixels; a square is written as its side.
SizeField = Annotated[
    tuple[int, int],
    BeforeValidator(_as_size),
    PlainSerializer(lambda size: size[0] if size[0] == size[1] else size),
    Words("side of a square or [height, width], 8 to 512 each"),
]


def by_default(key: str, tag: str) -> BeforeValidator:
    """Sections that are told apart by `key` need none to mean the one named `tag`."""
    return BeforeValidator(lambda value: {key: tag, **value} if isinstance(value, dict) else value)
