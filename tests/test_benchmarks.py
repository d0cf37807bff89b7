"""The benchmarks run, keep every figure, and draw it."""

from __future__ import annotations

import itertools
import json
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner

from benchmarks import battery, checkpoint, rival, scaling, step
from benchmarks.__main__ import main
from benchmarks.battery import Task, _kill, _wait, tasks, work
from benchmarks.plot import draw
from benchmarks.record import Outcome
from benchmarks.workbench import assemble
from fasttrain.config import load
from fasttrain.errors import UserError
from fasttrain.files import read_json
from fasttrain.observe import environment, journal
from fasttrain.observe.folder import RunFolder
from tests.distributed.launching import HANGS_AFTER, ROOT

OUTCOME = Outcome(
    title="this against that",
    unit="images/s",
    runs={"this": [1.0, 3.0, 2.0], "that": [4.0, 4.5, 5.0]},
    settings={},
)


def test_a_picture_names_every_competitor_and_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(OUTCOME, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    assert all(text in drawn for text in ("this", "that", "images/s", OUTCOME.title))


def test_figures_of_different_units_share_no_scale(tmp_path: Path) -> None:
    mixed = replace(OUTCOME, units={"this": "seconds", "that": "share"})
    assert list(mixed.by_unit()) == ["seconds", "share"]
    draw(mixed, tmp_path / "mixed.svg")
    drawn = (tmp_path / "mixed.svg").read_text()
    assert all(text in drawn for text in ("seconds", "share", OUTCOME.title))
    assert OUTCOME.by_unit() == {"images/s": OUTCOME.runs}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["step", "train", "overhead", "startup", "checkpoint", "memory"])
def test_a_benchmark_of_a_recipe_runs(name: str, tmp_path: Path) -> None:
    demo = ROOT / "configs" / "demo.yaml"
    words = [name, "--config", str(demo), "--quick", "--records", str(tmp_path)]
    ended = CliRunner().invoke(main, words, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    (record,) = tmp_path.glob("*.json")
    content = json.loads(record.read_text())
    assert content["quick"] is True
    assert all(min(found["all"]) > 0 for found in content["results"].values())
    assert record.with_suffix(".svg").exists()


def test_a_record_names_the_commit_that_its_measurement_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object) -> Outcome:
        monkeypatch.setattr(environment, "commit", lambda: "later")
        return OUTCOME

    monkeypatch.setattr(checkpoint, "measure", measure)
    monkeypatch.setattr(environment, "commit", lambda: "first")
    words = ["checkpoint", "--config", str(ROOT / "configs" / "demo.yaml")]
    CliRunner().invoke(main, [*words, "--records", str(tmp_path)], catch_exceptions=False)
    (record,) = tmp_path.glob("*.json")
    assert json.loads(record.read_text())["environment"]["commit"] == "first"


def test_a_run_that_was_kept_names_its_own_commit(tmp_path: Path) -> None:
    demo, run = ROOT / "configs" / "demo.yaml", RunFolder(tmp_path / "keep" / "seed0")
    run.path.mkdir(parents=True)
    run.begin(load(demo, ["seed=0"]))
    run.finish({"test_accuracy": 0.5, "train_seconds": 1.0, "images_per_second": 2.0})
    about = json.loads(run.environment.read_text())
    run.environment.write_text(json.dumps({**about, "commit": "abc"}))
    words = ["accuracy", "--config", str(demo), "--seeds", "1", "--keep", str(run.path.parent)]
    CliRunner().invoke(main, [*words, "--records", str(tmp_path)], catch_exceptions=False)
    (record,) = tmp_path.glob("*.json")
    (detail,) = json.loads(record.read_text())["details"]
    assert detail["commit"] == "abc"


# A rival


def says(text: str) -> str:
    """A command that prints `text`."""
    return shlex.join([sys.executable, "-c", f"print({text!r})"])


def test_a_rival_trains_once_with_every_seed(tmp_path: Path) -> None:
    command = says('epoch 1\n{"accuracy": 0.{seed}, "seconds": 2}')
    found = [rival.run(command, seed, tmp_path / f"{seed}.json") for seed in (5, 6)]
    assert [one["accuracy"] for one in found] == [0.5, 0.6]
    assert all(one["seconds"] == 2 and one["wall_seconds"] > 0 for one in found)
    (tmp_path / "5.json").write_text(json.dumps({**found[0], "seconds": 3}))
    assert rival.run(command, 5, tmp_path / "5.json")["seconds"] == 3  # it did not train again
    with pytest.raises(UserError, match="another --rival"):
        rival.run("false", 5, tmp_path / "5.json")
    (tmp_path / "5.json").write_text(json.dumps({**found[0], "accuracy": 94.05}))
    with pytest.raises(UserError, match=r"5\.json holds no accuracy from 0 to 1"):
        rival.run(command, 5, tmp_path / "5.json")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("false", "exit code 1"),
        (says("94 per cent"), "no JSON object"),
        (says('{"accuracy": 0.94}'), "no JSON object"),
        (says('{"accuracy": 94.05, "seconds": 1}'), "no JSON object"),
        (says('{"accuracy": 0.94, "seconds": NaN}'), "no JSON object"),
        (says('{"accuracy": 0.94, "seconds": 0}'), "no JSON object"),
        (says("[]"), "no JSON object"),
        (says(""), "no JSON object"),
    ],
)
def test_a_rival_that_tells_nothing_is_named(command: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        rival.run(command, 0, tmp_path / "kept.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_recipe_and_a_rival_are_compared_pair_by_pair(tmp_path: Path) -> None:
    demo, command = ROOT / "configs" / "demo.yaml", says('{"accuracy": 0.5, "seconds": 1}')
    words = ["accuracy", "--config", str(demo), "--quick", "--records", str(tmp_path / "records")]
    words += ["--seeds", "2", "--rival", command, "--keep", str(tmp_path / "runs")]
    ended = CliRunner().invoke(main, words, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    (record,) = (tmp_path / "records").glob("*.json")
    results = {
        name: found["all"] for name, found in json.loads(record.read_text())["results"].items()
    }
    assert results["rival_accuracy"] == [0.5, 0.5]
    walls = zip(results["wall_seconds"], results["rival_wall_seconds"], strict=True)
    assert results["wall_over_wall"] == [ours / theirs for ours, theirs in walls]
    pairs = zip(results["clock_over_clock"], results["wall_seconds"], strict=True)
    assert all(0 < ratio < wall for ratio, wall in pairs)


def test_a_step_says_what_share_of_the_machine_it_gets_and_what_it_draws() -> None:
    machine = {"matrix_product_flops": {"bf16": [4e12, 2e12, 9e12], "fp32": [1e12] * 3}}
    costs = {
        "flops_per_image": 1e9,
        "steps_a_repetition": {"bf16": 10, "compiled": 20},
        "batch_size": 100,
        "joules": {"bf16": [None, None, None], "compiled": [50.0, 40.0, 10.0]},
    }
    runs = {"bf16": [900.0, 1000.0, 1100.0], "compiled": [3000.0, 1000.0, 2000.0]}
    outcome = Outcome("a step", "images/s", runs, {}, details=[costs, machine])
    assert step.shares(outcome) == [
        "bf16: 1.000 TFLOP/s, 25% of bf16 products",
        "compiled: 2.000 TFLOP/s, 50% of bf16 products, 50.0 images per joule",
    ]


def test_a_step_in_parts_is_measured_under_a_runs_own_settings() -> None:
    words = ["train.accumulate=2", "train.device=cpu", "train.compile=false"]
    bench = assemble(load(ROOT / "configs" / "demo.yaml", [*words, "train.deterministic=true"]))
    try:
        assert torch.are_deterministic_algorithms_enabled()
        assert bench.images_per_second(itertools.repeat(bench.batch()), 1) > 0
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_run_that_fails_ends_a_benchmark_in_one_line(tmp_path: Path) -> None:
    demo, words = ROOT / "configs" / "demo.yaml", ["--keep", str(tmp_path), "--seeds", "1"]
    ended = CliRunner().invoke(
        main, ["accuracy", "--config", str(demo), *words, "data.batch_size=100000"]
    )
    assert ended.exit_code == 2
    assert f"the run in {tmp_path / 'seed0'} ended with exit code 2" in ended.stderr


@pytest.mark.parametrize(
    "stop",
    [lambda process: _wait(process, 0), subprocess.Popen.terminate],
    ids=["a battery", "a signal to it alone"],
)
def test_a_benchmark_that_is_stopped_leaves_a_checkpoint_and_its_seconds(
    stop: Callable[[subprocess.Popen[bytes]], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(battery, "_GRACE", HANGS_AFTER)
    run, end = RunFolder(tmp_path / "seed0"), time.monotonic() + HANGS_AFTER
    words = ["accuracy", "--config", "configs/demo.yaml", "--seeds", "1", "--keep", str(tmp_path)]
    words += ["train.epochs=100000", "train.log_every=5steps", "train.compile=false"]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, start_new_session=True
    ) as process:
        try:
            while not journal.read(run.journal):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)
            stop(process)
            assert process.wait(HANGS_AFTER) == 75
        finally:
            _kill(process.pid)
    assert (read_json(run.outcome) or {})["outcome"] == "stopped"
    assert run.newest_checkpoint() is not None
    (seconds,) = json.loads((tmp_path / "seed0-attempts.json").read_text())
    assert seconds > 0


# The battery


def task(name: str, code: str, minutes: float = 0.5) -> Task:
    """A task that is a line of Python."""
    return Task(name, ("timeit", "-n1", "-r1", code), minutes)


def test_a_battery_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    keep, door = tmp_path / "keep", tmp_path / "door"
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    passes = f"import pathlib; assert pathlib.Path({str(door)!r}).exists()"
    battery = (task("counts", count), task("fails at first", passes))
    first = work(battery, 60, keep, tmp_path)
    assert [first["counts"].code, first["fails at first"].code] == [0, 1]
    assert "AssertionError" in (keep / "fails-at-first.txt").read_text()
    door.touch()
    second = work(battery, 60, keep, tmp_path)
    assert {name: ending.code for name, ending in second.items()} == dict.fromkeys(first, 0)
    assert (tmp_path / "count").read_text() == "x"


def test_a_task_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = f"import subprocess as s; p = s.Popen(['sleep', '600']); open({str(pid)!r}, 'w')"
    endless = task("endless", f"{child}.write(str(p.pid)); p.wait()", minutes=0.17)
    ended = work((endless, task("next", "pass")), math.inf, tmp_path, tmp_path)
    assert ended["endless"].code is None
    assert ended["next"].code == 0
    number = int(pid.read_text())  # of a process that is gone, or waits for being counted
    assert not psutil.pid_exists(number) or psutil.Process(number).status() == "zombie"


def test_a_battery_whose_list_is_broken_says_so(tmp_path: Path) -> None:
    (tmp_path / "battery.json").write_text("{")
    with pytest.raises(UserError, match="remove it to begin again"):
        work((), 1, tmp_path, tmp_path)


@pytest.mark.parametrize("quick", [False, True])
def test_the_battery_names_commands_that_exist(quick: bool, tmp_path: Path) -> None:
    battery = tasks(tmp_path, quick)
    assert len({one.name for one in battery}) == len(battery)
    for one in battery:
        module, command, *words = one.words
        if module == "benchmarks":
            parameters = main.commands[command].make_context(command, list(words)).params
            if "config" in parameters:
                load(parameters["config"], parameters.get("overrides", ()))


def test_speedruns_that_are_there_take_turns_with_ours(tmp_path: Path) -> None:
    for path in ("b/base/cifar10_speedrun.py", "a/airbench96_faster.py", "c/cifar10_speedrun.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    battery = {one.name: one.words for one in tasks(tmp_path, speedruns=tmp_path)}
    given = {
        name: [word for word in battery[f"{name} in turn"] if word.startswith(("cifar", "airb"))]
        for name in ("speed94", "speed96")
    }
    command = "python -m benchmarks.speedrun"
    assert given["speed94"] == [f"cifar10_speedrun={command} {tmp_path}/c/cifar10_speedrun.py"]
    assert given["speed96"] == [f"airbench96_faster={command} {tmp_path}/a/airbench96_faster.py"]
    with pytest.raises(UserError, match="holds none of airbench94_muon"):
        tasks(tmp_path, speedruns=tmp_path / "b" / "base" / "nothing")


def test_a_battery_writes_no_path_of_the_machine_into_records() -> None:
    battery = tasks(ROOT / "runs" / "battery")
    assert not any(str(ROOT) in word for one in battery for word in one.words)


def test_the_rivals_of_a_battery_run_in_its_own_python(tmp_path: Path) -> None:
    told = tmp_path / "told"
    asks = task("asks", f"import shutil; open({str(told)!r}, 'w').write(shutil.which('python'))")
    assert work((asks,), 60, tmp_path, tmp_path)["asks"].code == 0
    assert Path(told.read_text()).parent == Path(sys.executable).parent


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_battery_does_not_begin(tmp_path: Path) -> None:
    ended = CliRunner().invoke(main, ["gpu", "--keep", str(tmp_path)])
    assert ended.exit_code == 2
    assert "no GPU" in ended.output


# Scaling


def test_a_ring_sends_twice_all_but_its_own_share() -> None:
    assert scaling.ring_bytes(1000, 1) == 0
    assert scaling.ring_bytes(1000, 2) == 1000
    assert scaling.ring_bytes(1000, 4) == 1500


def test_efficiency_falls_when_sending_outlasts_the_backward_pass() -> None:
    slow, fast = (scaling.Link("", speed, speed, 0.0) for speed in (1e6, 1e12))
    assert scaling.expected_efficiency(0.3, 10**6, 1, slow) == 1
    assert scaling.expected_efficiency(0.3, 10**6, 2, fast) == 1
    # 1 MB at 0.8 MB/s takes 1.25 s, of which 0.2 s are hidden
    assert scaling.expected_efficiency(0.3, 10**6, 2, slow) == pytest.approx(0.3 / 1.35)


@pytest.mark.parametrize("number", [1, 2, 4096])
def test_a_launch_has_as_many_cores_as_processes(number: int) -> None:
    tell, every = "import os; print(*os.sched_getaffinity(0))", os.sched_getaffinity(0)
    with scaling.on_cores(number):
        told = subprocess.check_output([sys.executable, "-c", tell], text=True)
    cores = set(map(int, told.split()))
    assert len(cores) == min(number, len(every))
    assert cores <= every == os.sched_getaffinity(0)
