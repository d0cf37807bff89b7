"""Nested settings as rows of a table."""

from __future__ import annotations

from typing import Any

from fasttrain.config import Config
from fasttrain.report.settings import differences, rows


def test_what_is_set_is_told_as_a_configuration_says_it() -> None:
    tree = {
        "python": "3.12",
        "cores": 2,
        "launch": {"deep": {"compile": True}},
        "gpus": ["one of them", "another"],
        "augment": [{"name": "crop", "padding": 2, "mode": "reflect " * 20}],
        "commit": None,
        "none": [],
        "nothing": "",
        "empty": {},
    }
    assert rows(tree) == [
        ("python", "3.12"),
        ("cores", "2"),
        ("launch.deep.compile", "true"),
        ("gpus", "[one of them, another]"),
        ("augment", f"[{{name: crop, padding: 2, mode: '{'reflect ' * 20}'}}]"),
    ]


def test_recipes_differ_in_what_not_all_of_them_share() -> None:
    plain: dict[str, Any] = {"name": "plain", "seed": 1, "track": {"project": "mine"}}
    adam = {"name": "adam", "optim": {"name": "adamw", "lr": 0.01}}
    averaged = {"name": "averaged", "train": {"ema": {"decay": 0.9}}, "data": {"augment": ["flip"]}}
    configs = [Config.model_validate(each) for each in (plain, adam, averaged)]
    found = dict(differences(configs))
    assert found["optim.name"] == ["sgd", "adamw", "sgd"]
    assert found["optim.betas"] == ["", "[0.9, 0.999]", ""]
    assert found["train.ema.decay"] == ["", "", "0.9"]
    assert found["data.augment"] == ["[]", "[]", "[{name: flip, mode: random}]"]
    assert list(found) == sorted(found)  # section by section
    assert not found.keys() & {"name", "seed", "track.project", "train.ema", "optim.lr"}
    assert differences(configs[:1]) == []
