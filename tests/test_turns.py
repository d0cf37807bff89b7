"""A recipe and its rivals train in turn, each in a process that stays warm."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks import trainer, turns
from benchmarks.__main__ import main
from benchmarks.contestant import rivals, variants
from benchmarks.record import Outcome
from fasttrain.errors import UserError
from tests.distributed.launching import ROOT

DEMO = ROOT / "configs" / "demo.yaml"
Measure = Callable[..., Outcome]


def contestant(log: Path, name: str, result: str, warm: str = "", when: str = "") -> list[str]:
    """A process that notes what it does, and for each seed runs `when` and prints `result`."""
    code = f"""
import os, sys, time
def note(what): open({str(log)!r}, "a").write(f"{name} {{what}}\\n")
note("starts")
{warm}
note("is ready")
print("ready", flush=True)
for line in sys.stdin:
    seed = int(line.split()[0])
    note(line.strip())
    {when or "pass"}
    print({result}, flush=True)
note("ends")
"""
    return [sys.executable, "-S", "-c", code]


def says(seconds: str) -> str:
    """An expression: a result with these seconds, which may depend on `seed`."""
    return f'\'{{"accuracy": 0.94, "seconds": %r}}\' % ({seconds})'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def measure(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """`turns.measure` on a stand-in for our own trainer, which takes 3 + seed seconds."""

    def measure(rivals: Mapping[str, list[str]], seeds: int = 3, **options: Any) -> Outcome:
        ours = options.pop("ours", contestant(log, "ours", says("3 + seed")))
        monkeypatch.setattr(turns, "trainer", lambda *_: ours)
        commands = {name: shlex.join(words) for name, words in rivals.items()}
        return turns.measure(DEMO, [], seeds, tmp_path / "keep", commands, **options)

    return measure


def written(tmp_path: Path) -> list[dict[str, Any]]:
    lines = (tmp_path / "keep" / "turns.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_all_train_in_turn_and_each_is_first_once(
    measure: Measure, log: Path, tmp_path: Path
) -> None:
    names = ("ours", "a", "b")
    outcome = measure({name: contestant(log, name, says("2.0")) for name in names[1:]})
    notes = log.read_text().splitlines()
    assert notes[:6] == [f"{name} {what}" for name in names for what in ("starts", "is ready")]
    assert " ".join(notes[6:15]) == "ours 0 a 0 b 0 a 1 b 1 ours 1 b 2 ours 2 a 2"
    assert sorted(notes[15:]) == ["a ends", "b ends", "ours ends"]
    assert outcome.runs["seconds"] == [3, 4, 5]
    assert outcome.runs["a seconds"] == [2, 2, 2]
    assert outcome.runs["ours over b"] == [1.5, 2, 2.5]
    assert outcome.details == written(tmp_path)
    assert [line["turn"] for line in outcome.details or []] == [0, 1, 2] * 3


def test_every_figure_has_its_unit(measure: Measure, log: Path) -> None:
    outcome = measure({"a": contestant(log, "a", says("2.0"))}, seeds=1)
    assert outcome.units == {
        "accuracy": "share",
        "seconds": "seconds",
        "a accuracy": "share",
        "a seconds": "seconds",
        "ours over a": "ours over theirs",
    }


def test_where_the_gpu_counts_joules_every_run_has_them(
    measure: Measure, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(range(0, 100, 7))
    monkeypatch.setattr(turns.energy, "joules", lambda: float(next(drawn)))
    outcome = measure({"a": contestant(log, "a", says("2.0"))}, seeds=2)
    assert outcome.runs["joules"] == outcome.runs["a joules"] == [7, 7]
    assert outcome.units is not None
    assert outcome.units["joules"] == outcome.units["a joules"] == "joules"
    assert [line["joules"] for line in written(tmp_path)] == [7] * 4


def test_a_rival_that_dies_is_left_out_and_keeps_what_it_has(
    measure: Measure, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = measure(
        {
            "mortal": contestant(log, "mortal", says("2.0"), when="seed == 1 and sys.exit(7)"),
            "unborn": contestant(log, "unborn", says("2.0"), warm="sys.exit(8)"),
            "missing": ["/there/is/no/such/program"],
            "sound": contestant(log, "sound", says("1.0")),
        }
    )
    told = capsys.readouterr().err
    assert "mortal is left out from here on: it ended (exit code 7)" in told
    assert "unborn is left out from here on: it ended (exit code 8)" in told
    assert "missing is left out from here on: it cannot be started" in told
    assert outcome.runs["ours over mortal"] == [1.5]
    assert outcome.runs["ours over sound"] == [3, 4, 5]
    assert not any(name in figure for figure in outcome.runs for name in ("unborn", "missing"))
    mortal = [line["seed"] for line in written(tmp_path) if line["contestant"] == "mortal"]
    assert mortal == [0]


@pytest.mark.parametrize(
    "result",
    [
        """'{"accuracy": 0.9}'""",
        """'{"accuracy": 0.9, "seconds": "none"}'""",
        """'{"accuracy": 0.9, "seconds": 0}'""",
        """'{"accuracy": NaN, "seconds": 1}'""",
        """'{"accuracy": 94.0, "seconds": 1}'""",
    ],
)
def test_a_rival_whose_result_is_none_is_left_out(
    result: str, measure: Measure, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = measure({"odd": contestant(log, "odd", result)}, seeds=2)
    assert list(outcome.runs) == ["accuracy", "seconds"]
    told = capsys.readouterr().err
    assert "odd is left out" in told
    assert "is no result" in told
    assert "exit code 0" in told


def test_chatter_is_passed_over(measure: Measure, log: Path) -> None:
    noise = r'os.write(1, b"loading\n[1, 2]\n3\n\n\xff\xfe {\nnot yet ready\n")'
    talker = contestant(log, "talker", says("2.0"), warm=noise, when=noise)
    outcome = measure({"talker": talker}, seeds=2)
    assert outcome.runs["talker seconds"] == [2, 2]


def test_without_our_own_trainer_there_is_nothing_to_compare(
    measure: Measure, log: Path, tmp_path: Path
) -> None:
    ours = contestant(log, "ours", says("3.0"), when="seed == 1 and sys.exit(9)")
    with pytest.raises(UserError, match=r"our own trainer is lost: it ended \(exit code 9\)"):
        measure({"a": contestant(log, "a", says("2.0"))}, ours=ours)
    # Seed 1 is begun by the rival; whatever was measured is there.
    assert [(line["contestant"], line["seed"]) for line in written(tmp_path)] == [
        ("ours", 0),
        ("a", 0),
        ("a", 1),
    ]
    assert log.read_text().splitlines()[-1] == "a ends"


def test_a_second_call_adds_to_what_is_written(measure: Measure, tmp_path: Path) -> None:
    for _ in range(2):
        measure({}, seeds=1)
    assert [line["seed"] for line in written(tmp_path)] == [0, 0]


def test_no_round_begins_when_the_time_is_over(measure: Measure, log: Path) -> None:
    slow = contestant(log, "slow", says("2.0"), when="time.sleep(1.5)")
    outcome = measure({"slow": slow}, seeds=99, minutes=1 / 60)
    assert 1 <= len(outcome.runs["slow seconds"]) == len(outcome.runs["seconds"]) <= 2
    outcome = measure({}, minutes=1e-9)
    assert outcome.runs["seconds"] == [3]  # what it took to get warm is not lost


def test_one_that_does_not_end_is_ended(
    measure: Measure, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.contestant._GRACE", 0.2)
    when = f"open({str(log) + '.pid'!r}, 'w').write(str(os.getpid())); "
    when += "print('{}', flush=True); time.sleep(600)"
    outcome = measure({"endless": contestant(log, "endless", says("1.0"), when=when)}, seeds=1)
    assert outcome.runs["seconds"] == [3]
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path(f"{log}.pid").read_text()), 0)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["nine=python"], "there is another 'nine'"),
        (["python"], "is not NAME=COMMAND"),
        (["=python"], "is not NAME=COMMAND"),
        (["a="], "is not NAME=COMMAND"),
        (["ours=python"], "there is another 'ours'"),
        (["a=true", "a=true"], "there is another 'a'"),
        (["a='true"], "cannot be read"),
        (["a=no-such-program -x"], "there is no program 'no-such-program'"),
    ],
)
def test_a_rival_has_a_name_and_a_command(given: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        rivals(given, taken=["nine"])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["nine"], "is not NAME=KEY.PATH=VALUE"),
        (["nine=train.epochs=9", "nine=train.epochs=10"], "there is another 'nine'"),
        (["two words=train.epochs=9"], "is no name"),
        (["../nine=train.epochs=9"], "is no name"),
        (["nine='train.epochs=9"], "cannot be read"),
    ],
)
def test_a_variant_has_a_name_and_changes(given: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        variants(given)


def test_a_variant_may_change_several_settings() -> None:
    found = variants(["nine=train.epochs=9 optim.lr=0.2", "b.1='train.resize=[{scale: 0.5}]'"])
    assert found == {
        "nine": ["train.epochs=9", "optim.lr=0.2"],
        "b.1": ["train.resize=[{scale: 0.5}]"],
    }


def test_variants_train_in_turn_in_our_own_process(measure: Measure, log: Path) -> None:
    rival = contestant(log, "a", says("2.0"))
    own = contestant(log, "ours", says("4.0 if len(line.split()) > 1 else 3.0"))
    nine = {"nine": ["train.epochs=9"]}
    outcome = measure({"a": rival}, seeds=2, ours=own, variants=nine)
    notes = log.read_text().splitlines()
    assert " ".join(notes[4:10]) == "ours 0 ours 0 nine a 0 ours 1 nine a 1 ours 1"
    assert outcome.runs["nine seconds"] == [4, 4]
    assert outcome.runs["nine over a"] == [2, 2]
    assert outcome.runs["ours over a"] == [1.5, 1.5]
    assert outcome.units is not None
    assert outcome.units["nine over a"] == "ours over theirs"
    assert outcome.settings["variants"] == nine


def test_a_variant_takes_our_own_trainer_with_it(measure: Measure, log: Path) -> None:
    dies = "len(line.split()) > 1 and sys.exit(9)"
    ours = contestant(log, "ours", says("3.0"), when=dies)
    with pytest.raises(UserError, match=r"our own trainer is lost: it ended \(exit code 9\)"):
        measure({}, seeds=1, ours=ours, variants={"nine": ["train.epochs=9"]})


def test_a_variant_with_a_wrong_setting_is_refused_before_anything_starts(
    measure: Measure, log: Path
) -> None:
    with pytest.raises(UserError, match="epoch"):
        measure({}, variants={"nine": ["train.epoch=9"]})
    assert not log.exists()


def test_our_trainer_hears_of_its_variants(tmp_path: Path) -> None:
    own = turns.trainer(DEMO, ["seed=1"], tmp_path, {"b": ["train.resize=[{scale: 0.5}]", "x=1"]})
    assert variants(own[-1:]) == {"b": ["train.resize=[{scale: 0.5}]", "x=1"]}


def test_a_command_may_hold_equal_signs() -> None:
    assert rivals(["a=true b=c", "d = true"]) == {"a": "true b=c", "d": "true"}


# Our own contestant

RESULT = {
    "batch_size": 2000,
    "images_per_second": 250_000.0,
    "train_seconds": 2.0,
    "evaluate_seconds": 0.3,
    "initialize_seconds": 0.1,
    "compile_seconds": 50.0,
    "checkpoint_seconds": 5.0,
    "total_seconds": 60.0,
}


def test_the_clock_adds_these_phases() -> None:
    assert trainer.clock(RESULT) == pytest.approx(2.0 + 0.3 + 0.1 + 2000 / 250_000)


def test_a_run_leaves_the_graphs_to_the_next_one() -> None:
    reset = torch.compiler.reset
    with trainer.compiled_once():
        assert torch.compiler.reset is not reset
        torch.compiler.reset()
    assert torch.compiler.reset is reset


@pytest.mark.long
@pytest.mark.timeout(900)
def test_our_own_trainer_takes_part(tmp_path: Path, log: Path) -> None:
    rival = shlex.join(contestant(log, "rival", says("1.0")))
    words = ["turns", "--config", str(DEMO), "--quick", "--seeds", "2", "train.compile=true"]
    words += ["--records", str(tmp_path / "records"), "--keep", str(tmp_path / "runs")]
    words += ["--variant", "softer=train.label_smoothing=0.3", "--rival", f"rival={rival}"]
    ended = CliRunner().invoke(main, words, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    (record,) = (tmp_path / "records").glob("turns-demo-*.json")
    content = json.loads(record.read_text())
    results = {name: found["all"] for name, found in content["results"].items()}
    assert results["ours over rival"] == results["seconds"]
    ours = [line for line in content["details"] if line["contestant"] == "ours"]
    assert [line["seed"] for line in ours] == [0, 1]
    assert all(line["train_seconds"] < line["seconds"] < line["total_seconds"] for line in ours)
    assert len(results["softer accuracy"]) == len(results["softer over rival"]) == 2
