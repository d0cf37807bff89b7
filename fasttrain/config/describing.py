"""What can be set: every section with its settings, read off the models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic.fields import FieldInfo

from fasttrain.config.fields import Section, tag_of
from fasttrain.config.meanings import about, meaning
from fasttrain.config.sections import Config
from fasttrain.config.wording import is_list, is_tag, kind, sections_of, typed
from fasttrain.errors import UserError, nearest

# The keys that lead to a section or setting. A tag, which tells sections of one key apart, stands
# among them behind a `=`, as `muon` in `optim`, `=muon`, `lr`; a name may leave it out.
Place = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A setting.

    Attributes:
        place: Where it is found.
        key: As it is typed; of a list's entry, what is typed in the entry.
        kind: What it takes.
        default: As it is typed; empty where it must be set.
        meaning: A sentence or two.
    """

    place: Place
    key: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Block:
    """A section, or a part of it.

    Attributes:
        section: The model.
        place: Where it is found; empty for the whole configuration.
        title: What chooses it, as it is typed.
        homes: The titles of sections, one of which must be chosen for it to be there.
        about: What it is for; empty for a part.
        settings: In the model's order.
    """

    section: type[Section]
    place: Place
    title: str
    homes: tuple[str, ...]
    about: str
    settings: tuple[Setting, ...]


def describe(name: str | None = None) -> list[Block]:
    """Describe everything that can be set, or what has a name.

    Args:
        name: Of a section or setting, such as `train`, `optim.muon` or `train.epochs`.

    Raises:
        UserError: nothing has that name.
    """
    blocks = list(_walk(Config))
    if name is None:
        return _once(blocks)
    words = name.split(".")
    named = [part for block in blocks for part in _named(words, block)]
    if not named:
        sections = [key for key, field in Config.model_fields.items() if sections_of(field)]
        raise UserError(
            f"no section or setting is called {name!r}{_hint(name, blocks)} "
            f"(sections: {', '.join(sections)}; fasttrain config lists all settings)"
        )
    return _once(named)


def _walk(
    section: type[Section],
    place: Place = (),
    title: str = "",
    prefix: str = "",
    homes: tuple[str, ...] = (),
) -> Iterator[Block]:
    """Yield the block of a section, then those of the sections in it."""
    fields = {key: field for key, field in section.model_fields.items() if not is_tag(field)}
    settings = tuple(_setting(section, key, place, prefix) for key in fields)
    yield Block(section, place, title, homes, about(section), settings)
    homes = (title,) if place and place[-1].startswith("=") else homes
    for key, field in fields.items():
        for inner in sections_of(field):
            yield from _walk(inner, *_inside(field, inner, (*place, key), prefix + key), homes)


def _setting(section: type[Section], key: str, place: Place, prefix: str) -> Setting:
    field = section.model_fields[key]
    inner = sections_of(field)
    said = meaning(section, key) or (about(inner[0]) if inner else "")
    default = "" if field.is_required() else typed(field.default)
    if len(inner) > 1 and not is_list(field):  # what is typed is the tag
        place, prefix = (*place, key), f"{prefix}{key}."
        key, default = next(iter(inner[0].model_fields)), tag_of(type(field.default))
    return Setting((*place, key), prefix + key, kind(field), default, said)


def _inside(
    field: FieldInfo, inner: type[Section], place: Place, key: str
) -> tuple[Place, str, str]:
    """Place, title and prefix of a section that a setting may hold."""
    tag = next(iter(inner.model_fields)) if len(sections_of(field)) > 1 else ""
    name = tag_of(inner)
    if tag:
        place = (*place, f"={name}")
    if not is_list(field):
        return place, f"{key}.{tag}={name}" if tag else key, f"{key}."
    entry = [f"{tag}: {name}"] if tag else []
    entry += ["..."] if inner.model_fields.keys() - {tag} else []
    return place, f"{key}=[{{{', '.join(entry)}}}]", ""


def _named(words: Sequence[str], block: Block) -> Iterator[Block]:
    """What of a block has a name: all of it, some settings, or nothing.

    A section that is always there has a block of its own, which says all that its row does.
    """
    rows = (each for each in block.settings if each.kind != "section")
    if _leads(words, block.place):
        yield block
    elif some := tuple(each for each in rows if _leads(words, each.place)):
        yield replace(block, about="", settings=some)


def _leads(words: Sequence[str], place: Place) -> bool:
    """Whether a name is that of a place, or of one that it lies in."""
    left = list(words)
    for word in place:
        if left and left[0] == word.removeprefix("="):
            left.pop(0)
        elif left and not word.startswith("="):
            return False
    return not left


def _once(blocks: Iterable[Block]) -> list[Block]:
    """A section that several others have under one title stands where the first has it."""
    found: dict[tuple[type[Section], str], Block] = {}
    for block in blocks:
        same = found.get((block.section, block.title))
        homes = (*same.homes, *block.homes) if same else block.homes
        found[block.section, block.title] = replace(same or block, homes=homes)
    return list(found.values())


def _hint(name: str, blocks: Iterable[Block]) -> str:
    """The nearest name, first of all one that ends alike."""
    places = [place for each in blocks for place in (each.place, *(s.place for s in each.settings))]
    names = [".".join(word for word in place if not word.startswith("=")) for place in places]
    names += [".".join(word.removeprefix("=") for word in place) for place in places]
    alike = [each for each in names if each.split(".")[-1] == name.split(".")[-1]]
    return f"; did you mean {alike[0]!r}?" if alike and name else nearest(name, names)
