"""The report: all figures of a run, in one file that needs nothing else."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from fasttrain.answers import interval, load
from fasttrain.cli import main
from fasttrain.config import Config, Data
from fasttrain.data import resident, sources
from fasttrain.data.shapes import CLASSES, ShapesSource
from fasttrain.observe.folder import RunFolder
from fasttrain.report import write
from fasttrain.report.reading import read
from fasttrain.report.samples import samples
from fasttrain.training.run import run

RECIPE = {
    "name": "small <b>& bold",
    "data": {"dataset": "shapes", "batch_size": 16, "validation": 40},
    "model": {"widths": [8, 8]},
    "train": {"epochs": 3, "device": "cpu", "precision": "fp32", "compile": False,
              "log_every": "2steps"},
    "track": {"report": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two seeds of one recipe, and another one, trained on few shapes."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTTRAIN_CACHE", str(folder / "cache"))
        patch.setattr(sources, "ShapesSource", lambda: ShapesSource(train=200, test=60))
        for name, changed in (
            ("one", {"name": "small"}),
            ("two", {"name": "small", "seed": 1}),
            ("long", {"name": "other", "optim": {"name": "adamw", "lr": 0.01}}),
        ):
            config = Config.model_validate({**RECIPE, **changed})
            run(config, folder / name, console=Console(quiet=True))
    yield folder


@pytest.fixture(autouse=True)
def _same_data(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTTRAIN_CACHE", str(home / "cache"))
    monkeypatch.setattr(sources, "ShapesSource", lambda: ShapesSource(train=200, test=60))


def page(*runs: Path, live: bool = False) -> str:
    file = runs[0].parent / "page.html"
    write(runs, file, live)
    return file.read_text()


def text(page: str) -> str:
    """What a reader sees, without the charts' own markup."""
    return " ".join(re.sub(r"<(style|svg).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


class Tags(HTMLParser):
    """Checks that every element is closed, in order, and gathers what the page refers to."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass


def test_its_figures_are_those_of_the_result(home: Path) -> None:
    shown, found = text(page(home / "one")), result(home / "one")
    accuracy = found["test_accuracy"]
    low, high = interval(accuracy, found["test_count"])
    assert f"test accuracy {accuracy:.2%} 95 %: {low:.2%} to {high:.2%}, of 60" in shown
    assert f"validation accuracy {found['val_accuracy']:.2%}" in shown
    assert f"images/s {found['images_per_second']:,.0f}" in shown
    assert f"waiting for data {found['data_stall']:.1%}" in shown
    assert "epoch 3 of 3" in shown
    assert "complete" in shown


def test_it_tells_each_class_and_each_mistake(home: Path) -> None:
    whole = page(home / "one")
    answers, shown = load(RunFolder(home / "one").answers("test")), text(whole)
    for name, share in zip(CLASSES, answers.per_class(len(CLASSES)), strict=True):
        of = sum(CLASSES[label] == name for label in answers.label)
        assert f"{name} {of} {100 * (share or 0):.2f}%" in shown
    assert whole.count('<td class="self"') == len(CLASSES)
    assert shown.count("taken for") == len(answers.mistakes(24))
    assert whole.count('alt="picture ') == len(answers.mistakes(24))


def test_it_tells_how_often_a_run_was_started(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "resumed"
    shutil.copytree(home / "one", run)
    about = json.loads((run / "environment.json").read_text())
    (first,) = about["starts"]
    assert first["step"] == 0
    about["starts"] += [{"time": "2026-01-02T03:04:05Z", "step": 1234, "host": "other"}]
    (run / "environment.json").write_text(json.dumps(about))
    assert "Started 1 time" in text(page(home / "one"))
    assert "Started 2 times" in text(page(run))
    assert "2026-01-02T03:04:05Z 1,234 other" in text(page(run))


def test_it_shows_what_the_model_sees(home: Path) -> None:
    (home / "one" / "samples.png").unlink(missing_ok=True)
    assert "Training pictures as the model sees them" in text(page(home / "one"))
    with Image.open(home / "one" / "samples.png") as sheet:
        assert sheet.width > sheet.height > 400


def test_it_does_not_unpack_the_training_set_for_a_few_pictures(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("the whole set, beside a run that may need the memory")

    monkeypatch.setattr(resident, "pack", refuse)
    (home / "one" / "samples.png").unlink(missing_ok=True)
    assert "Training pictures as the model sees them" in text(page(home / "one"))


def test_pictures_that_cannot_be_kept_are_shown_all_the_same(home: Path) -> None:
    nowhere = RunFolder(home / "one" / "config.yaml")
    drawn = samples(dataclasses.replace(read(home / "one"), folder=nowhere))
    assert drawn is not None
    assert drawn.startswith(b"\x89PNG")


@pytest.mark.parametrize("runs", [("one",), ("one", "two", "long")])
def test_it_is_well_formed_and_needs_nothing_else(home: Path, runs: tuple[str, ...]) -> None:
    tags = Tags()
    whole = page(*(home / name for name in runs))
    tags.feed(whole)
    assert tags.open == []
    assert tags.addresses
    assert all(address.startswith(("data:", "#")) for address in tags.addresses)
    assert whole.count("<svg") == (8 if len(runs) == 1 else 6)
    assert "url(http" not in whole


def test_several_runs_stand_side_by_side_by_recipe_and_seed(home: Path) -> None:
    shown = text(page(home / "one", home / "two", home / "long"))
    found = [result(home / name)["test_accuracy"] for name in ("one", "two", "long")]
    small = (found[0] + found[1]) / 2
    assert f"{100 * small:.2f}%" in shown
    assert f"{100 * abs(found[0] - found[1]):.2f} points" in shown
    assert f"{100 * (found[2] - small):+.2f} points" in shown
    assert "one seed" in shown


def test_several_runs_are_told_apart_by_their_settings(home: Path) -> None:
    shown = text(page(home / "one", home / "two", home / "long"))
    _, _, differences = shown.partition("Different settings")
    assert "optim.name sgd adamw" in differences
    assert "train.epochs" not in differences  # they have it in common
    assert "Different settings" not in text(page(home / "one", home / "two"))


def test_a_run_that_goes_on_loads_itself_anew(home: Path, tmp_path: Path) -> None:
    going = tmp_path / "going"
    shutil.copytree(home / "one", going)
    (going / "result.json").unlink()
    (going / "answers-test.npz").unlink()
    (going / "outcome.json").write_text('{"outcome": "running", "message": ""}')
    lines = (going / "metrics.jsonl").read_text().splitlines()[:10]
    (going / "metrics.jsonl").write_text("\n".join(lines) + '\n{"cut off')
    assert 'http-equiv="refresh"' in page(going, live=True)
    assert 'http-equiv="refresh"' not in page(going)
    assert "Answers to the validation pictures" in page(going)


def test_the_speed_of_a_run_that_goes_on_is_that_of_all_its_time(
    home: Path, tmp_path: Path
) -> None:
    going = tmp_path / "going"
    shutil.copytree(home / "one", going)
    (going / "result.json").unlink()
    first = json.loads((going / "metrics.jsonl").read_text().splitlines()[0])
    speeds = ((7.0, 1.0), (1000.0, 0.0), (100.0, 0.9))  # the first one's cold start is left out
    journal = [
        {**first, "step": 50 * at, "steps": 50, "images_per_second": rate, "data_stall": waited}
        for at, (rate, waited) in enumerate(speeds, start=1)
    ]
    (going / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in journal))
    shown = text(page(going))
    assert "images/s 182 over the training time" in shown
    assert "waiting for data 81.8% of the training time" in shown


def test_a_run_that_has_just_begun_is_shown_too(home: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("config.yaml", "outcome.json", "environment.json"):
        shutil.copy(home / "one" / name, begun)
    (begun / "metrics.jsonl").write_text("")
    assert "Curves" in text(page(begun))


def test_without_its_data_a_run_is_shown_without_pictures(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTTRAIN_CACHE", str(tmp_path / "empty"))
    shown = page(home / "one")
    assert "not at hand" in shown
    assert CLASSES[0] in text(shown)
    assert not (tmp_path / "empty").exists()  # nothing is prepared for a report


def test_pictures_of_a_data_set_that_changed_since_are_not_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(home / "one", changed, ignore=shutil.ignore_patterns("samples.png"))
    monkeypatch.setattr(sources, "ShapesSource", lambda: ShapesSource(train=200, test=20))
    sources.open_dataset(Data(dataset="shapes"))  # so that it is prepared, and could be taken
    shown = page(changed)
    assert "not at hand" in shown
    assert not (changed / "samples.png").exists()


def test_what_a_user_named_is_no_markup(home: Path, tmp_path: Path) -> None:
    odd = tmp_path / "<script>alert(1)</script>"
    shutil.copytree(home / "one", odd)
    assert "<script" not in page(odd)


def test_what_a_user_named_is_no_formula(home: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a$b_{$"
    shutil.copytree(home / "one", odd)
    assert page(odd, home / "two").count("a$b_{$") > 2  # in the legends, too


def test_a_long_run_makes_no_large_page(home: Path, tmp_path: Path) -> None:
    long = tmp_path / "long"
    shutil.copytree(home / "one", long)
    lines = [json.loads(line) for line in (long / "metrics.jsonl").read_text().splitlines()]
    train, scored = (next(one for one in lines if one["kind"] == kind)
                     for kind in ("train", "evaluation"))  # fmt: skip
    journal = [{**train, "step": step, "epoch": -(-step // 98)} for step in range(50, 19_600, 50)]
    journal += [{**scored, "step": 98 * epoch, "epoch": epoch} for epoch in range(1, 201)]
    (long / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in journal))
    assert len(page(long)) < 1_500_000


def test_the_command(home: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(home / "one")])
    assert done.output == f"written: {home / 'one' / 'report.html'}\n"
    several = ["report", str(home / "one"), str(home / "two")]
    refused = CliRunner().invoke(main, several)
    assert refused.exit_code == 2
    assert "several runs need -o FILE.html" in refused.stderr
    file = tmp_path / "both.html"
    assert CliRunner().invoke(main, [*several, "-o", str(file)]).exit_code == 0
    assert file.exists()
    gone = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert gone.exit_code == 2
    assert "there is no run here" in gone.stderr


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("runs", [("one",), ("one", "two", "long")])
def test_a_browser_finds_nothing_to_complain_of(
    home: Path, tmp_path: Path, runs: tuple[str, ...]
) -> None:
    write([home / name for name in runs], tmp_path / "page.html")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
               f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
               "--host-resolver-rules=MAP * ~NOTFOUND",
               "--dump-dom", f"file://{tmp_path / 'page.html'}"]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert "CONSOLE" not in shown.stderr
    assert shown.stdout.count("<figure") >= 6


def test_a_run_draws_its_own_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTTRAIN_REPORT")
    config = Config.model_validate({**RECIPE, "name": "own", "track": {"report": "auto"}})
    run(config, tmp_path / "own", console=Console(quiet=True))
    drawn = (tmp_path / "own" / "report.html").read_text()
    assert f"{result(tmp_path / 'own')['test_accuracy']:.2%}" in text(drawn)
    assert "Where the time went" in drawn
    assert 'http-equiv="refresh"' not in drawn
