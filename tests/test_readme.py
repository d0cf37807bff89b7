"""The README says what the records say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.library import newest
from benchmarks.readme import PAGES, render
from benchmarks.record import FOLDER
from benchmarks.tables import TABLES
from fasttrain.errors import UserError

LOADERS = "loaders(-light-512)?"


def copied(folder: Path) -> Path:
    """The records, to be changed."""
    for path in FOLDER.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def asked(table: str) -> str:
    return f"above\n<!-- records: {table} -->\n<!-- end of records -->\nbelow\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_tables_are_what_the_newest_records_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall("<!-- records: ", text)) >= 3
    assert render(text, page=page) == text, "run python -m benchmarks readme"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 5
    for link in links:
        if link.startswith("https://"):
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.is_file(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [title.lower().replace(" ", "-") for title in titles], link


def test_every_table_stands_on_a_page() -> None:
    every = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(f"<!-- records: {name} -->" in every for name in TABLES)


def test_a_figure_that_changes_makes_the_table_stale(tmp_path: Path) -> None:
    records = copied(tmp_path)
    drawn = render(asked("loaders"), records)
    path, content = newest(records, LOADERS)
    content["results"]["fasttrain dali"]["median"] = 1234567.0
    path.write_text(json.dumps(content))
    assert "1,234,567" in render(drawn, records) != drawn


def test_the_newest_record_counts_unless_it_is_a_first_look(tmp_path: Path) -> None:
    records = copied(tmp_path)
    drawn = render(asked("loaders"), records)
    _, content = newest(records, LOADERS)
    newer = records / "loaders-20990101-000000.json"
    newer.write_text(json.dumps({**content, "quick": True}))
    assert render(drawn, records) == drawn
    newer.write_text(json.dumps(content))
    assert newer.name in render(drawn, records)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("recipes", "accuracy-demo"),
        ("other-loaders", "loaders-heavy-64"),
        ("costs", "memory-demo"),
    ],
)
def test_a_name_with_first_looks_alone_stands_in_no_table(
    table: str, name: str, tmp_path: Path
) -> None:
    records = copied(tmp_path)
    drawn = render(asked(table), records)
    (records / f"{name}-20990101-000000.json").write_text(json.dumps({"quick": True}))
    assert render(drawn, records) == drawn


def test_what_stands_around_a_table_stays() -> None:
    lines = render(asked("recipes")).splitlines()
    assert (lines[0], lines[-1]) == ("above", "below")


def test_a_table_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match=f"'lodaers'.*{', '.join(TABLES)}"):
        render(asked("lodaers"))


def test_a_table_without_records_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no record of loaders; run python -m benchmarks"):
        render(asked("loaders"), tmp_path)


def test_what_a_gpu_did_stands_in_tables_of_its_own(tmp_path: Path) -> None:
    records = copied(tmp_path)
    cpu, gpu = (render(asked(name), records) for name in ("recipes", "gpu-recipes"))
    path = max(records.glob("accuracy-baseline-*.json"))
    content = json.loads(path.read_text())
    content["environment"]["gpus"] = ["NVIDIA X1"]
    content["details"][0]["peak_gpu_memory_bytes"] = 12_340_000_000
    (records / "accuracy-baseline-20990101-000000.json").write_text(json.dumps(content))
    assert render(asked("recipes"), records) == cpu
    drawn = render(asked("gpu-recipes"), records)
    assert "`baseline`" not in gpu
    assert "| `baseline` | 10 | 73.51 % (one run) | 193 s |" in drawn
    assert "| 12.3 GB | NVIDIA X1 |" in drawn


@pytest.mark.parametrize("name", ["gpu-recipes", "gpu-loaders", "gpu-costs", "turns"])
def test_what_no_gpu_did_yet_has_a_line_in_place_of_a_table(name: str, tmp_path: Path) -> None:
    assert "python -m benchmarks gpu" in render(asked(name), tmp_path)


def test_those_that_took_turns_are_compared_with_each_rival(tmp_path: Path) -> None:
    results = {
        "accuracy": [0.94, 0.95],
        "seconds": [1.0, 1.2],
        "ten accuracy": [0.93, 0.94],
        "ten seconds": [0.9, 0.8],
        "a accuracy": [0.94],
        "a seconds": [2.0],
        "ours over a": [0.5],
        "ten over a": [0.45],
    }
    record = {
        "quick": False,
        "environment": {"processor": "AMD EPYC", "gpus": ["NVIDIA X1"]},
        "settings": {
            "name": "speed94",
            "train": {"epochs": 11},
            "variants": {"ten": ["train.epochs=10"]},
            "rivals": {"a": "python a.py", "lost": "python lost.py"},
        },
        "results": {name: {"all": each} for name, each in results.items()},
    }
    (tmp_path / "turns-speed94-20260101-000000.json").write_text(json.dumps(record))
    lines = render(asked("turns"), tmp_path).splitlines()
    assert lines[4:7] == [
        "| NVIDIA X1 | `speed94`, 11 epochs | 94.50 % (mean of 2) | 1.100 (1.000 to 1.200) "
        "| `a` 0.500 (one) |",
        "|  | the same, train.epochs=10 | 93.50 % (mean of 2) | 0.850 (0.800 to 0.900) "
        "| `a` 0.450 (one) |",
        "|  | `a` | 94.00 % (mean of 1) | 2.000 (one) |  |",
    ]


def test_a_rival_stands_beside_the_recipe(tmp_path: Path) -> None:
    results = {
        "test_accuracy": [0.94, 0.95],
        "clock_seconds": [600, 620],
        "wall_seconds": [640, 660],
        "rival_accuracy": [0.94, 0.941],
        "rival_seconds": [1000, 1000],
        "rival_wall_seconds": [1280, 1100],
        "clock_over_clock": [0.6, 0.62],
        "wall_over_wall": [0.5, 0.6],
    }
    record = {
        "quick": False,
        "settings": {"train": {"epochs": 10}},
        "results": {name: {"all": each} for name, each in results.items()},
    }

    def keep(day: int, processor: str, record: Mapping[str, Any]) -> None:
        record = {**record, "environment": {"processor": processor, "gpus": []}}
        (tmp_path / f"accuracy-speed94-2026010{day}-000000.json").write_text(json.dumps(record))

    first = {name: {"all": each[:1]} for name, each in results.items()}
    keep(1, "Intel(R) Xeon(R) Processor", {**record, "results": first})
    keep(2, "Intel(R) Xeon(R) Processor", record)
    keep(3, "AMD EPYC", {**record, "results": first})
    keep(4, "AMD EPYC", {"quick": False, "results": {"test_accuracy": {"all": [0.96]}}})
    drawn = render(asked("rival"), tmp_path)
    assert "| Intel Xeon | `speed94`, 10 epochs | 94.50 % (94.00, 95.00) | 610 s | 650 s |" in drawn
    assert "|  | the rival | 94.05 % (94.00, 94.10) | 1,000 s | 1,190 s |" in drawn
    assert "0.610 (0.600 to 0.620) | 0.550 (0.500 to 0.600) |" in drawn
    assert "| AMD EPYC | `speed94`, 10 epochs | 94.00 % (one run) | 600 s | 640 s |" in drawn
    assert "0.600 (one) | 0.500 (one) |" in drawn
    assert "20260101" not in drawn
