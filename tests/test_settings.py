"""`fasttrain config` says what can be set, and all that it says is so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest
from click.testing import CliRunner, Result

from fasttrain.cli import main
from fasttrain.config import Config, Duration, Train, load
from fasttrain.config.describing import Block, Setting, describe
from fasttrain.config.fields import Section, sections_in
from fasttrain.config.meanings import about, meaning
from fasttrain.config.wording import is_tag
from fasttrain.errors import UserError

BLOCKS = describe()


def models(section: type[Section] = Config) -> Iterator[type[Section]]:
    """Every section that a configuration can have."""
    yield section
    for field in section.model_fields.values():
        for inner in sections_in(field.annotation):
            if inner is not Duration:
                yield from models(inner)


MODELS = list(dict.fromkeys(models()))


def keys(section: type[Section]) -> list[str]:
    """A section's settings, without the one that only tells it from others."""
    return [key for key, field in section.model_fields.items() if not is_tag(field)]


def name_of(each: type[Section] | Block | Setting | str) -> str:
    match each:
        case Block():
            return each.title
        case Setting():
            return each.key
        case str():
            return each
    return each.__name__


# What it means


def test_no_section_is_overlooked() -> None:
    def below(section: type[Section]) -> set[type[Section]]:
        return {section}.union(*map(below, section.__subclasses__()))

    ours = {each for each in below(Section) if each.__module__.startswith("fasttrain.")}
    assert ours - {base for each in MODELS for base in each.__mro__} == {Duration}


@pytest.mark.parametrize("section", MODELS, ids=name_of)
def test_every_section_says_what_it_is_for(section: type[Section]) -> None:
    assert re.fullmatch(r"[A-Z].*\.", about(section))


@pytest.mark.parametrize(
    ("section", "key"), [(each, key) for each in MODELS for key in keys(each)], ids=name_of
)
def test_every_setting_has_a_meaning(section: type[Section], key: str) -> None:
    inner = sections_in(section.model_fields[key].annotation)
    said = meaning(section, key) or about(*inner)  # what one section is for needs no other words
    assert re.fullmatch(r"[A-Z`].*\.", said)


class Parent(Section):
    """A section.

    More about it.
    """

    silent: int = 0
    told: int = 0
    """It
    speaks."""


class Child(Parent):
    told: int = 1


def test_what_says_nothing_would_be_noticed() -> None:
    assert (about(Parent), about(Child)) == ("A section.", "")
    assert (meaning(Parent, "silent"), meaning(Parent, "told")) == ("", "It speaks.")
    assert meaning(Child, "told") == ""  # it may mean something else by now


def test_what_is_inherited_means_the_same() -> None:
    told = {block.title: block.settings[0].meaning for block in describe("schedule.warmup")}
    assert told["schedule.name=linear"] == told["schedule.name=cosine"]
    assert told["schedule.name=linear"] != told["schedule.name=one_cycle"]


# Keys, kinds and defaults are those of the models


def test_every_setting_of_every_section_is_shown() -> None:
    assert {block.section for block in BLOCKS} == set(MODELS)
    for block in BLOCKS:
        depth = len(block.place)
        assert [each.place[depth] for each in block.settings] == keys(block.section)


NEEDED = {"schedule.every": "1epochs", "width": "8", "scale": "0.5", "until": "10%"}


def typed(block: Block, settings: Sequence[str]) -> list[str]:
    """What a user types to choose a section and some of its settings."""
    must = [f"{each.key}={NEEDED[each.key]}" for each in block.settings if not each.default]
    home, title, settings = block.homes[:1], block.title, [*must, *settings]
    if title.endswith("}]"):  # an entry of a list
        return [*home, title.replace("...", ", ".join(s.replace("=", ": ") for s in settings))]
    chosen = [title if "=" in title else f"{title}={{}}"] if title else []
    return [*home, *chosen, *settings]


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_the_defaults_that_are_shown_change_nothing(block: Block) -> None:
    shown = [each for each in block.settings if each.default and "..." not in each.default]
    defaults = [f"{each.key}={each.default}" for each in shown]
    assert load(None, typed(block, defaults)) == load(None, typed(block, ()))


def test_a_default_with_many_digits_is_shown_with_the_first_of_them() -> None:
    cut = [each for block in BLOCKS for each in block.settings if "..." in each.default]
    assert [(each.key, each.default) for each in cut] == [
        ("ratio", "[0.75, 1.333...]"),
        ("model.logit_scale", "0.1111..."),
    ]


BESIDE = {
    "model.residual_norm=true": ["model.residual=true"],
    "schedule.name=step": ["schedule.every=1epochs"],
}


@pytest.mark.parametrize(
    ("block", "setting"),
    [
        (block, each)
        for block in BLOCKS
        for each in block.settings
        if re.fullmatch(r"(?!path|section)\w+(, \w+)* or \w+", each.kind)
    ],
    ids=name_of,
)
def test_each_choice_is_taken_and_no_other(block: Block, setting: Setting) -> None:
    for word in re.split(", | or ", setting.kind):
        chosen = f"{setting.key}={word}"
        load(None, typed(block, [*BESIDE.get(chosen, []), chosen]))
    with pytest.raises(UserError, match="nothing_of_it"):
        load(None, typed(block, [f"{setting.key}=nothing_of_it"]))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("name", "text of at most 80 characters"),
        ("seed", "whole number from 0, below 2^63"),
        ("data.path", "path or null"),
        ("data.size", "side of a square or [height, width], 8 to 512 each, or null"),
        ("data.test_share", "number above 0, below 1, or null"),
        ("data.workers", "whole number from 0 to 256"),
        ("data.augment.resized_crop.scale", "[lowest, highest], numbers above 0, at most 1"),
        ("model.attention_cnn.kernels", "list of one or more odd numbers from 1 to 31"),
        ("model.depth", "whole number 6 n + 4 from 10 to 1000"),
        ("model.ghost_batch", "whole number from 2, a multiple of 2, or null"),
        ("model.family", "cnn, attention_cnn, wide_resnet or whitened_cnn"),
        ("optim.betas", "list of 2 numbers from 0, below 1"),
        ("schedule.every", "duration above 0, such as 20steps, 2epochs or 10%"),
        ("train.compile", "auto, true or false"),
        ("train.accumulate", "auto, or whole number from 1"),
        ("train.resize", "list of at most 6 sections"),
        ("train.ema", "section or null"),
        ("train.watchdog", "minutes such as 5min, or null"),
        ("checkpoint.every", "duration such as 20steps, 2epochs, 10% or 5min, or null"),
        ("track.project", "text, not empty"),
    ],
)
def test_what_a_setting_takes_is_said_in_words(name: str, kind: str) -> None:
    assert describe(name)[0].settings[0].kind == kind


# What is asked for


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("track", ["track"]),
        ("train.ema", ["train", "train.ema"]),
        ("train.epochs", ["train"]),
        ("optim.adamw", ["optim.name=adamw"]),
        ("optim.rest.sgd", ["optim.rest.name=sgd"]),
        ("optim.muon", ["optim.name=muon", "optim.rest.name=sgd", "optim.rest.name=adamw"]),
        ("optim.lr", ["optim.name=sgd", "optim.name=adamw", "optim.name=muon"]),
        ("schedule.name", [""]),
        ("data.augment.crop", ["data.augment=[{name: crop, ...}]"]),
        ("data.augment.crop.padding", ["data.augment=[{name: crop, ...}]"]),
        ("data.augment.vertical_flip", ["data.augment=[{name: vertical_flip}]"]),
        ("model.stages", ["model.family=attention_cnn", "model.stages=[{...}]"]),
        ("model.whitened_cnn.whitening.patch", ["model.whitening"]),
    ],
)
def test_a_part_is_shown_by_its_name(name: str, titles: list[str]) -> None:
    assert [block.title for block in describe(name)] == titles


def test_what_a_section_is_for_is_said_once() -> None:
    shown = " ".join(fasttrain("config", "train").stdout.split())
    assert shown.count(about(Train)) == 1
    (row,) = (each for each in BLOCKS[0].settings if each.key == "train")  # as all are listed
    assert (row.kind, row.meaning) == ("section", about(Train))


def test_a_section_that_two_families_have_is_shown_once() -> None:
    (found,) = describe("model.whitening.patch")
    assert found.homes == ("model.family=attention_cnn", "model.family=whitened_cnn")
    assert [each.key for each in found.settings] == ["model.whitening.patch"]


def fasttrain(*words: str, width: int = 80) -> Result:
    return CliRunner().invoke(main, words, env={"COLUMNS": str(width)})


@pytest.mark.parametrize("width", [80, 120])
def test_all_settings_fit_the_screen(width: int) -> None:
    shown = fasttrain("config", width=width)
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= width
    assert "\x1b" not in shown.output
    words = set(shown.output.split())
    assert {each.key for block in BLOCKS for each in block.settings} <= words
    assert "fasttrain config SECTION" in shown.output.splitlines()[-1]


def test_a_setting_is_shown_with_its_default_and_what_it_takes_and_means() -> None:
    title, _, *lines = fasttrain("config", "train.clip_norm", width=120).stdout.splitlines()
    words = [re.sub("  +", "  ", line.strip()) for line in lines]
    (setting,) = describe("train.clip_norm")[0].settings
    assert title == "train"
    assert words == ["train.clip_norm  null  number above 0, or null", setting.meaning, ""]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("trian", "train"),
        ("muon", "optim.muon"),
        ("optim.muom", "optim.muon"),
        ("epochs", "train.epochs"),
        ("train.epoch", "train.epochs"),
        ("data.crop", "data.augment.crop"),
        ("schedule.warmpu", "schedule.warmup"),
    ],
)
def test_a_name_that_nothing_has_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    refused = fasttrain("config", name)
    assert refused.exit_code == 2
    line = f"fasttrain: no section or setting is called {name!r}; did you mean {nearest!r}? ("
    assert refused.stderr.startswith(line)
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""


@pytest.mark.parametrize("name", ["", ".", "train.", ".train", "train..epochs", "xyzzy"])
def test_what_is_like_no_name_is_answered_with_the_sections(name: str) -> None:
    refused = fasttrain("config", name)
    assert refused.exit_code == 2
    assert "data, model, optim, schedule, train, checkpoint, track" in refused.stderr


def test_who_trains_is_told_where_the_settings_are() -> None:
    assert "fasttrain config" in fasttrain("train", "--help").stdout
