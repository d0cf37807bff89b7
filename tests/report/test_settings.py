"""Nested settings as rows of a table."""

from __future__ import annotations

from fasttrain.report.settings import rows


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
