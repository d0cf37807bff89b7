"""What a run is: typed, frozen, validated settings.

A configuration is a YAML file of sections, each optional. `load` reads it, applies
`key.path=value` overrides, and refuses anything it does not know, naming the file, the key and
the nearest valid name. Nothing here touches a device, so a bad setting fails in milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from fasttrain.errors import UserError, nearest

DatasetName = Literal["cifar10", "cifar100", "shapes", "folder"]
LoaderName = Literal["auto", "dali", "resident", "reference"]
Unit = Literal["steps", "epochs", "min", "%"]

_ALTERNATIVES = ("literal['auto']", "bool")  # what pydantic adds to the place of a union's error
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(steps?|epochs?|min|%)")


def _no_truth(value: object) -> object:
    if isinstance(value, bool):  # would count as 1 or 0
        raise ValueError("input should be a number, not yes or no")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]
Real = Annotated[float, BeforeValidator(_no_truth)]
Share = Annotated[Real, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


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


DurationField = Annotated[Duration, BeforeValidator(_as_duration), PlainSerializer(str)]
StepsField = Annotated[DurationField, AfterValidator(_countable)]


def _positive(value: Duration) -> Duration:
    if value.value == 0:
        raise ValueError("this is longer than nothing")
    return value


def _named(default: str) -> BeforeValidator:
    """Sections that are told apart by `name` need none to mean the `default` one."""
    return BeforeValidator(
        lambda value: {"name": default, **value} if isinstance(value, dict) else value
    )


class Crop(Section):
    """Pad by `padding` pixels on every side, then cut the picture's own size out at random."""

    name: Literal["crop"] = "crop"
    padding: Whole = Field(4, ge=1, le=16)
    mode: Literal["zero", "reflect"] = "zero"


class Flip(Section):
    """Mirror left to right.

    `random`: a fair coin for each picture and epoch. `alternating`: a fixed first side for each
    picture, then the other one every other epoch, so that any two epochs in a row show both
    (Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, section 3.6).
    """

    name: Literal["flip"] = "flip"
    mode: Literal["random", "alternating"] = "random"


class Cutout(Section):
    """Cover a square of `size` pixels with the training set's mean colour.

    The centre is anywhere in the picture, so the square may hang over its edge (DeVries and
    Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
    arXiv 1708.04552, section 3).
    """

    name: Literal["cutout"] = "cutout"
    size: Whole = Field(8, ge=1, le=64)


Augmentation = Annotated[Crop | Flip | Cutout, Field(discriminator="name")]


def _augmentation_names() -> list[str]:
    members = get_args(get_args(Augmentation)[0])
    return [str(member.model_fields["name"].default) for member in members]


class Data(Section):
    """Which pictures, in which batches, changed how."""

    dataset: DatasetName = "cifar10"
    path: Path | None = None
    loader: LoaderName = "auto"
    batch_size: Whole = Field(512, ge=1)
    validation: Whole = Field(5000, ge=0)
    workers: Whole = Field(2, ge=0, le=256)
    augment: tuple[Augmentation, ...] = ()

    @field_validator("augment", mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        """Accept `- flip` for `- {name: flip}`, and refuse an unknown name by its nearest."""
        if not isinstance(value, list | tuple):
            return value
        entries = [{"name": entry} if isinstance(entry, str) else entry for entry in value]
        valid = _augmentation_names()
        for entry in entries:
            name = entry.get("name") if isinstance(entry, dict) else None
            if isinstance(entry, dict) and name not in valid:
                hint = nearest(str(name), valid)
                raise ValueError(f"no augmentation is named {name!r}{hint} (known: {valid})")
        return tuple(entries)

    @field_validator("augment")
    @classmethod
    def _each_once(cls, value: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
        order = [_augmentation_names().index(entry.name) for entry in value]
        if order != sorted(set(order)):
            raise ValueError(
                f"each augmentation may stand once, in the order {_augmentation_names()}"
            )
        return value


class Model(Section):
    """A plain convolutional network: convolution, norm, ReLU and pooling for each width."""

    family: Literal["cnn"] = "cnn"
    widths: tuple[Annotated[Whole, Field(ge=1)], ...] = Field((64, 128, 256), min_length=1)
    norm: Literal["none", "batch"] = "none"


class SGD(Section):
    """Stochastic gradient descent; weight decay is added to the gradient.

    Momentum follows Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, section 2, in torch's form.
    """

    name: Literal["sgd"] = "sgd"
    lr: Real = Field(0.01, gt=0)
    momentum: Real = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: Real = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamW(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2)."""

    name: Literal["adamw"] = "adamw"
    lr: Real = Field(1e-3, gt=0)
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Real = Field(1e-8, gt=0)
    weight_decay: Real = Field(0.01, ge=0)


class Muon(Section):
    """Orthogonalised momentum for kernels and matrices; `rest` takes everything else.

    `scale` multiplies the rate of a matrix of m rows and n columns: `shape` by sqrt(max(1, m/n))
    (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024), `rms` by
    0.2 sqrt(max(m, n)), so that rates tuned for AdamW fit (Liu et al., "Muon is scalable for LLM
    training", arXiv 2502.16982, section 2.2). `fix_norm` keeps the Frobenius norm of every
    matrix at sqrt(m): only directions are learnt, which suits kernels followed by a norm.
    """

    name: Literal["muon"] = "muon"
    lr: Real = Field(0.02, gt=0)
    momentum: Real = Field(0.95, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: Real = Field(0.0, ge=0)
    iterations: Whole = Field(5, ge=1, le=20)
    scale: Literal["shape", "rms", "none"] = "shape"
    fix_norm: bool = False
    rest: Annotated[SGD | AdamW, Field(discriminator="name"), _named("sgd")] = SGD()


Optim = Annotated[SGD | AdamW | Muon, Field(discriminator="name"), _named("sgd")]


class Curve(Section):
    """What all schedules share: the rate climbs linearly over the `warmup`."""

    name: str
    warmup: StepsField = Duration(value=0, unit="epochs")


class Constant(Curve):
    """The rate stays at `optim.lr`."""

    name: Literal["constant"] = "constant"


class StepDecay(Curve):
    """The rate is multiplied by `gamma` every `every`, counted from the start of the run."""

    name: Literal["step"] = "step"
    every: Annotated[StepsField, AfterValidator(_positive)]
    gamma: Real = Field(0.1, gt=0, le=1)


class Cosine(Curve):
    """Half a cosine from 1 to `floor` over `t_max` after the warm-up, by default the whole rest.

    Loshchilov and Hutter, "SGDR", arXiv 1608.03983, section 3, without restarts.
    """

    name: Literal["cosine"] = "cosine"
    t_max: Annotated[StepsField, AfterValidator(_positive)] | None = None
    floor: Share = 0.0


class OneCycle(Curve):
    """Up from `start` to 1 over the `warmup`, then down to `floor` at the last step.

    Smith and Topin, "Super-convergence", arXiv 1708.07120, section 3; momentum stays as it is.
    """

    name: Literal["one_cycle"] = "one_cycle"
    warmup: StepsField = Duration(value=30, unit="%")
    curve: Literal["cosine", "linear"] = "cosine"
    start: Real = Field(0.04, gt=0, le=1)
    floor: Share = 4e-6


class Linear(Curve):
    """A straight line from 1, after the warm-up, to `floor` after the last step."""

    name: Literal["linear"] = "linear"
    floor: Share = 0.0


Schedule = Annotated[
    Constant | StepDecay | Cosine | OneCycle | Linear,
    Field(discriminator="name"),
    _named("constant"),
]


class Ema(Section):
    """An exponential moving average of the weights; evaluation uses it.

    With `warmup` the decay of step t is at most (1 + t) / (10 + t), so that the random initial
    weights are forgotten at once.
    """

    decay: Real = Field(0.999, gt=0, lt=1)
    warmup: bool = True


class Train(Section):
    """How long, in which arithmetic, and how often to look."""

    epochs: Whole = Field(10, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "bf16"
    compile: Literal["auto"] | bool = "auto"
    channels_last: bool = True
    deterministic: bool = False
    accumulate: Whole = Field(1, ge=1)
    clip_norm: Real | None = Field(None, gt=0)
    label_smoothing: Real = Field(0.0, ge=0, lt=1)
    ema: Ema | None = None
    log_every: StepsField = Duration(value=50, unit="steps")
    evaluate_every: StepsField = Duration(value=1, unit="epochs")
    processes: Whole | None = Field(None, ge=1)


class Checkpoint(Section):
    """When the state of a run is written, and how many of them stay."""

    every: DurationField | None = Duration(value=1, unit="epochs")
    keep: Whole = Field(2, ge=1)


class Track(Section):
    """Where the figures go beside the run folder's own journal."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "disabled"
    project: str = Field("fasttrain", min_length=1)


class Config(Section):
    """Everything that decides a run, but where it is written."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    seed: Whole = Field(0, ge=0, lt=2**63)
    data: Data = Data()
    model: Model = Model()
    optim: Optim = SGD()
    schedule: Schedule = Constant()
    train: Train = Train()
    checkpoint: Checkpoint = Checkpoint()
    track: Track = Track()

    def to_yaml(self) -> str:
        """The whole configuration, every default written out, as `load` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


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


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration at `path` and apply `key.path=value` overrides.

    Raises:
        UserError: the file is missing or no YAML, or a key or value is not valid; the message
            names the file (or the override), the key, and the nearest valid name.
    """
    tree = _read_tree(path)
    origins: dict[tuple[str, ...], str] = {}
    for override in overrides:
        for keys in _apply_override(tree, override):
            origins[keys] = f"the argument {override!r}"
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error, path, origins)) from None


def _read_tree(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such configuration file{_siblings(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a text file: {error}") from None
    try:
        tree = _parse(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise UserError(f"{path}{line}: not valid YAML: {_problem(error)}") from None
    if tree is None:
        return {}
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


def _problem(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or "it cannot be parsed"


def _siblings(path: Path) -> str:
    folder = path.parent
    names = [entry.name for entry in folder.glob("*.yaml")] if folder.is_dir() else []
    return nearest(path.name, names)


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
        if key not in node:
            changed.append(keys[:depth])
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            raise UserError(f"{override!r}: {key!r} is a value, not a section")
        node = child
    node[keys[-1]] = value
    return changed


def _explain(error: ValidationError, path: Path, origins: dict[tuple[str, ...], str]) -> str:
    """One line for all that is wrong, each with its place and its mend."""
    lines = []
    for problem in error.errors():
        keys, valid = _follow(problem["loc"])
        at = max((at for at in origins if keys[: len(at)] == at), key=len, default=None)
        origin = origins[at] if at else str(path)
        lines.append(f"{origin}: {_explain_one(problem, keys, valid)}")
    return "; ".join(dict.fromkeys(lines))


def _explain_one(problem: Any, keys: tuple[str, ...], valid: list[str]) -> str:
    dotted = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {dotted!r}{nearest(keys[-1], valid)} (known here: {', '.join(valid)})"
    if problem["type"] == "union_tag_invalid":
        key, tag = problem["ctx"]["discriminator"].strip("'"), problem["ctx"]["tag"]
        return f"{dotted}.{key}: there is no {tag!r}{nearest(tag, valid)} (known: {valid})"
    if problem["type"] in ("model_type", "model_attributes_type"):
        return f"{dotted}: a section of settings belongs here (it is {problem['input']!r})"
    message = " ".join(problem["msg"].removeprefix("Value error, ").split())
    value = problem.get("input")
    shown = "" if isinstance(value, dict | Section) else f" (it is {value!r})"
    return f"{dotted or 'configuration'}: {message[0].lower()}{message[1:]}{shown}"


def _follow(location: tuple[int | str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Follow the place of an error through the sections' types.

    Returns the keys as the user wrote them (pydantic adds the name of the alternative it chose,
    which only helps in a list), and what is valid there: keys, or names of alternatives.
    """
    sections: list[type[BaseModel]] = [Config]
    written: list[str] = []
    for part in (str(part) for part in location if part not in _ALTERNATIVES):
        chosen = [section for section in sections if _tag(section) == part]
        if chosen and len(sections) > 1:
            sections = chosen
            if not written[-1].isdigit():
                continue
        elif sections and part in sections[0].model_fields:
            sections = _sections_in(sections[0].model_fields[part].annotation)
        written.append(part)
    if len(sections) > 1:
        return tuple(written), [_tag(section) for section in sections]
    return tuple(written), list(sections[0].model_fields) if sections else []


def _tag(section: type[BaseModel]) -> str:
    """What tells a section from its alternatives."""
    key = next((key for key in ("name", "family") if key in section.model_fields), None)
    return str(section.model_fields[key].default) if key else ""


def _sections_in(annotation: object) -> list[type[BaseModel]]:
    """The sections that a type is made of: itself, or the members of a union or tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]
