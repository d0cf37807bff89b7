"""The commands as a user types them: what they write, what they say, and how they refuse."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from fasttrain import answers, observe
from fasttrain.cli import main
from fasttrain.cli.group import print_table
from fasttrain.data import cifar, loader
from fasttrain.data.store import open_store
from fasttrain.observe import environment
from fasttrain.training.checkpoint import place
from tests.pictures import encode, make_pictures, write_folder, write_zip

TRAIN, TEST = 40, 30  # pictures
PICTURES = make_pictures(TRAIN, TEST)
STEPS = 20
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "data": {"dataset": "folder", "batch_size": 8, "validation": 0, "augment": ["crop", "flip"]},
    "model": {"widths": [8, 16], "norm": "batch"},
    "train": {
        "epochs": 4,
        "device": "cpu",
        "precision": "fp32",
        "compile": False,
        "log_every": "1steps",
    },
    "checkpoint": {"every": "4steps"},
}


def write_config(file: Path, **data: object) -> Path:
    settings = {**SETTINGS, "data": {**SETTINGS["data"], **data}}
    file.write_text(yaml.safe_dump(settings))
    return file


def fasttrain(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def succeed(*words: object) -> Result:
    ended = fasttrain(*words)
    assert ended.exit_code == 0, f"{ended.output}\n{ended.exception!r}"
    return ended


@pytest.fixture(scope="module", autouse=True)
def _all_cores() -> Iterator[None]:
    """Runs share their work among all cores, as they do for a user who has decided nothing."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test works in the project's folder, whose environment takes minutes to look through."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a cache of its own, so that whatever is left behind shows."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FASTTRAIN_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def config(here: Path) -> Path:
    """A configuration that works, and its pictures."""
    pictures = write_zip(here / "pictures.zip", PICTURES)
    return write_config(here / "config.yaml", path=str(pictures))


def refusal(*words: object, code: int = 2) -> str:
    """The one line with which a command ends that writes nothing."""
    before = everything(Path())
    ended = fasttrain(*words)
    check_refusal(ended.exit_code, ended.stderr, code)
    assert isinstance(ended.exception, SystemExit)  # and no bug that ran through
    assert everything(Path()) == before
    check_cache(Path("../cache"))
    return ended.stderr.rstrip("\n")


def check_refusal(exit_code: int, stderr: str, code: int = 2) -> None:
    assert exit_code == code, stderr
    assert stderr.startswith("fasttrain: ")
    assert stderr.count("\n") == 1
    assert stderr.endswith("\n")
    assert "Traceback" not in stderr


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_cache(cache: Path) -> None:
    """What lies in the cache under its final name is whole, and nothing half-written is there."""
    assert list(cache.rglob("*.part")) == []
    assert [path for path in cache.glob("downloads/*") if not path.name.startswith(".")] == []
    for path in cache.glob("stores/*"):
        if not path.name.startswith("."):  # of a lock
            open_store(path)


# Settings that cannot be read.


@pytest.mark.parametrize(
    "command", [("train",), ("data", "prepare"), ("data", "info")], ids=" ".join
)
@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'epochs'?"),
        ("trian.epochs=3", "unknown key 'trian'; did you mean 'train'?"),
        ("train.epochs=many", "train.epochs: input should be a valid integer"),
        ("train.epochs=0", "train.epochs: input should be greater than or equal to 1 (it is 0)"),
        ("optim.momentum=1.5", "optim.momentum: input should be less than 1 (it is 1.5)"),
        ("data.loader=tensorflow", "data.loader: input should be 'auto', 'dali', 'resident' or"),
        ("train.epochs", "'train.epochs' is not an override; write key.path=value"),
    ],
)
def test_an_override_that_is_wrong_is_named(
    command: tuple[str, ...], override: str, complaint: str, config: Path
) -> None:
    line = refusal(*command, config, override)
    assert complaint in line
    assert f"{override!r}" in line


def test_a_misspelt_section_in_the_file_is_named(config: Path) -> None:
    config.write_text(config.read_text().replace("optim:", "").replace("model:", "modle:"))
    line = refusal("train", config)
    assert line.startswith(f"fasttrain: {config}: unknown key 'modle'; did you mean 'model'?")


def test_everything_that_is_wrong_is_told_at_once(config: Path) -> None:
    line = refusal("train", config, "train.epoch=3", "optim.lr=-1", "checkpoint.every=7parsecs")
    for part in ("'epochs'", "optim.lr: input should be greater than 0", "20steps, 2epochs"):
        assert part in line


def test_a_missing_configuration_is_named_with_its_nearest(config: Path) -> None:
    line = refusal("train", config.with_name("confg.yaml"))
    assert line.endswith("there is no such configuration file; did you mean 'config.yaml'?")


def test_a_configuration_that_is_no_yaml_is_named_with_the_line(config: Path) -> None:
    config.write_text("train:\n  epochs: [1\n")
    assert f"{config} (line 3): not valid YAML" in refusal("train", config)


def test_the_real_command_ends_with_one_line_and_code_2(config: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fasttrain", "train", config, "train.epoch=3"],
        capture_output=True,
        text=True,
        check=False,
    )
    check_refusal(ended.returncode, ended.stderr)
    assert ended.stdout == ""


# Data that is not there or cannot be used.


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to open a URL fails at once; the list holds what was asked for."""
    asked = []

    def fail(request: Any, *_: object, **__: object) -> None:
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    return asked


def test_no_data_and_no_network_tells_what_was_tried_and_the_ways_out(
    config: Path, no_network: list[str]
) -> None:
    line = refusal("train", write_config(config, dataset="cifar10"))
    url = cifar.published("cifar10").url
    assert url in no_network
    for tried in ("data.path and FASTTRAIN_DATA are not set", "cache/downloads holds none", url):
        assert tried in line
    for way_out in ("data.path=", "FASTTRAIN_DATA=", "by hand", "data.dataset=shapes"):
        assert way_out in line


def archive(folder: Path, labels: list[int]) -> Path:
    """A CIFAR-10 archive of small batches that all have these labels."""
    path, root = folder / "cifar-10-python.tar.gz", folder / "cifar-10-batches-py"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    for name in cifar.published("cifar10").digests:
        # Protocol 4: numpy names other functions in later ones, which are refused.
        (root / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}, protocol=4))
    with tarfile.open(path, "w:gz") as file:
        file.add(root, root.name)
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def publish(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checksums of an archive and its batches be the published ones."""
    about = cifar.published("cifar10")
    digests = {file.name: md5(file) for file in (path.parent / "cifar-10-batches-py").iterdir()}
    batches = {
        split: {name: digests[name] for name in names} for split, names in about.batches.items()
    }
    found = replace(about, md5=md5(path), batches=batches)
    monkeypatch.setattr(cifar, "published", lambda _: found)


def test_an_archive_with_a_wrong_checksum_is_named(config: Path) -> None:
    path = archive(config.parent, [0, 1, 2, 3])
    line = refusal("train", config, "data.dataset=cifar10", f"data.path={path}")
    assert f"{path}: the checksum is not the published one" in line


def test_a_truncated_archive_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(config.parent, [0, 1, 2, 3])
    path.write_bytes(path.read_bytes()[:-5000])
    words = ("train", config, "data.dataset=cifar10", f"data.path={path}")
    assert f"{path}: the checksum is not the published one" in refusal(*words)
    publish(path, monkeypatch)  # even where its checksum holds
    assert f"{path}: cannot be read" in refusal(*words)


def test_labels_that_do_not_fit_are_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(config.parent, [0, 1, 2])
    publish(path, monkeypatch)
    line = refusal("train", config, "data.dataset=cifar10", f"data.path={path}")
    assert f"{path}!" in line
    assert "3 labels do not fit 4 pictures; delete it and download it again" in line


GOOD = PICTURES["train/3/00003.png"]
LARGER = encode(np.zeros((20, 16, 3), np.uint8))


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("train/3/00003.png", GOOD[:-40], "damaged or cut short"),
        ("train/3/00003.png", b"no picture at all", "not a picture"),
        ("test/4/00004.png", LARGER, "16x20 pixels, but this set's pictures have 16x16"),
        ("test/aardvark/1.png", GOOD, "class 'aardvark' has test pictures but no training"),
        ("train/empty/", None, "no picture in train/empty"),
    ],
    ids=["truncated", "no picture", "another size", "unknown class", "empty class"],
)
def test_pictures_that_cannot_be_used_are_named(
    form: str, name: str, content: bytes | None, complaint: str, config: Path
) -> None:
    path = config.parent / f"broken.{form}"
    if form == "zip":
        write_zip(path, {**PICTURES, name: content or b""})
    elif content is None:
        (write_folder(path, PICTURES) / name).mkdir()
    else:
        write_folder(path, {**PICTURES, name: content})
    line = refusal("train", config, f"data.path={path}")
    assert complaint in line
    assert str(path) in line
    if name.endswith(".png") and "aardvark" not in name:
        assert f"{path}{'!' if form == 'zip' else '/'}{name}: " in line


def test_a_batch_larger_than_the_set_is_refused(config: Path) -> None:
    line = refusal("train", config, "data.batch_size=41")
    assert "data.batch_size=41 is more than the 40 training pictures (40 less 0 for valid" in line
    line = refusal("train", config, "data.batch_size=36", "data.validation=10")
    assert "data.batch_size=36 is more than the 30 training pictures (40 less 10 for val" in line


def test_a_validation_split_larger_than_the_set_is_refused(config: Path) -> None:
    line = refusal("train", config, "data.validation=40")
    assert "data.validation=40 leaves nothing of the 40 training pictures" in line


# A machine that lacks what was asked for, and folders that cannot be written.


def test_a_gpu_that_is_not_there_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "train.device=cuda: torch sees no NVIDIA GPU" in refusal(
        "train", config, "train.device=cuda"
    )


def test_dali_that_is_not_installed_is_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "find_spec", lambda _: None)
    line = refusal("train", config, "data.loader=dali")
    assert line.endswith("install nvidia-dali-cuda130 or choose data.loader=auto")


def test_a_folder_that_already_holds_a_run_is_left_as_it_is(config: Path, trained: Path) -> None:
    shutil.copytree(trained, "complete")
    line = refusal("train", config, "--run-dir", "complete")
    assert "complete already holds a run; add --resume" in line
    (Path("complete") / "result.json").unlink()
    assert "already holds a run" in refusal("train", config, "--run-dir", "complete")


def test_resume_needs_a_folder(config: Path) -> None:
    assert "--resume needs --run-dir" in refusal("train", config, "--resume")


def test_other_settings_need_a_run_to_go_on_with(config: Path) -> None:
    line = refusal("train", config, "--run-dir", "run", "--allow-changes")
    assert line.startswith("fasttrain: --allow-changes needs --resume")


def test_a_run_on_other_batches_is_not_resumed(config: Path, trained: Path) -> None:
    shutil.copytree(trained, "other")
    (Path("other") / "result.json").unlink()
    line = refusal("train", config, "seed=1", "--run-dir", "other", "--resume")
    assert "seed=1 (it was 0)" in line
    pictures = write_zip(Path("others.zip"), make_pictures(60, 30))
    words = (f"data.path={pictures}", "--run-dir", "other", "--resume")
    ended = fasttrain("train", config, *words)
    check_refusal(ended.exit_code, ended.stderr)
    assert "was trained on other batches" in ended.stderr


@pytest.mark.parametrize("place", ["config.yaml/run", "/proc/run", "x" * 300], ids=len)
def test_a_run_folder_that_cannot_be_written_is_refused(place: str, config: Path) -> None:
    line = refusal("train", config, "--run-dir", place)
    assert line.startswith(f"fasttrain: cannot write {place}")
    assert "; choose a" in line


def test_a_run_that_is_not_there_cannot_be_evaluated(here: Path) -> None:
    assert f"{here}: there is no run here" in refusal("evaluate", here)
    assert "runs/gone: there is no run here" in refusal("evaluate", "runs/gone")


def test_a_run_without_a_whole_checkpoint_cannot_be_evaluated(here: Path, trained: Path) -> None:
    run = here / "run"
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("step-*"))
    line = refusal("evaluate", run)
    assert line.endswith(f"{run}: there is no whole checkpoint; train it again in another folder")
    (run / "result.json").unlink()
    mend = f"wait for its first, or train on with --run-dir {run} --resume"
    assert refusal("evaluate", run).endswith(f"{run}: there is no whole checkpoint; {mend}")
    broken = run / "checkpoints" / "step-00000004"
    shutil.copytree(trained / "checkpoints" / f"step-{STEPS:08d}", broken)
    (broken / "model.safetensors").write_bytes(b"")
    line = refusal("evaluate", run)
    assert f"{broken}: the checksum of model.safetensors does not hold" in line
    assert line.endswith("; mend that, or delete them and train again")


# What a run leaves behind.


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration and its pictures for the whole of this file."""
    home = tmp_path_factory.mktemp("home")
    pictures = write_zip(home / "pictures.zip", PICTURES)
    write_config(home / "config.yaml", path=str(pictures))
    return home


@pytest.fixture(scope="module")
def trained(home: Path) -> Iterator[Path]:
    """A run that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTTRAIN_CACHE", str(home / "cache"))
        succeed("train", home / "config.yaml", "--run-dir", home / "undisturbed")
        yield home / "undisturbed"


def test_a_summary_is_a_table_of_names_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    print_table({"test accuracy": "70.00%", "training": "5.0 s"}, title="runs/x")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].rstrip() == "runs/x"
    assert any(re.search(r"test accuracy\W+70\.00%", line) for line in shown)
    assert any(re.search(r"training\W+5\.0 s", line) for line in shown)


def read_result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


def weights(run: Path) -> bytes:
    return (run / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors").read_bytes()


def figures(run: Path) -> list[dict[str, Any]]:
    """The journal without what the clock says."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    clock = ("images_per_second", "data_stall", "seconds")
    return [
        {name: value for name, value in json.loads(line).items() if name not in clock}
        for line in lines
    ]


def test_a_run_leaves_the_files_that_the_design_lists(trained: Path) -> None:
    files = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    checkpoints = {
        f"checkpoints/step-{step:08d}/{name}"
        for step in (16, 20)  # the newest two
        for name in ("model.safetensors", "state.pt", "manifest.json")
    }
    assert files == {
        "answers-test.npz",
        "config.yaml",
        "data.json",
        "environment.json",
        "heartbeat.json",
        "metrics.jsonl",
        "outcome.json",
        "result.json",
        ".lock",
        *checkpoints,
    }
    about = json.loads((trained / "environment.json").read_text())
    assert about["packages"]["torch"] == environment.installed_version("torch")
    assert yaml.safe_load((trained / "config.yaml").read_text())["optim"]["name"] == "sgd"


def test_the_journal_and_the_result_of_a_run_are_whole(trained: Path) -> None:
    records = figures(trained)
    assert [record["step"] for record in records if record["kind"] == "train"] == [
        *range(1, STEPS + 1)
    ]
    test = records[-1]
    assert (test["kind"], test["split"], test["count"]) == ("evaluation", "test", TEST)
    result = read_result(trained)
    assert (result["test_accuracy"], result["test_count"]) == (test["accuracy"], TEST)
    assert (result["steps"], result["epochs"], result["val_accuracy"]) == (STEPS, 4, None)
    assert 0 < result["data_stall"] < 1


def test_a_validation_split_is_scored_and_held_out(config: Path) -> None:
    settings = ("data.validation=10", "train.epochs=2", "checkpoint.every=2epochs")
    succeed("train", config, *settings, "--run-dir", "run")
    scores = [record for record in figures(Path("run")) if record["kind"] == "evaluation"]
    assert [(score["split"], score["step"], score["count"]) for score in scores] == [
        *(("validation", step, 10) for step in (3, 6)),
        ("test", 6, TEST),
    ]
    assert read_result(Path("run"))["val_accuracy"] == scores[1]["accuracy"]


def test_a_run_without_a_folder_makes_one_and_says_what_comes_next(config: Path) -> None:
    name = "first" + "-and-longest" * 6  # the command that comes next must not be broken up
    ended = succeed("train", config, f"name={name}", "train.epochs=1")
    (run,) = Path("runs").iterdir()
    assert run.name.startswith(f"{name}-")
    assert f"next: fasttrain evaluate {run}\n" in ended.stdout
    assert str(read_result(run)["test_count"]) in ended.stdout


def test_runs_of_either_precision_may_follow_each_other_in_one_process(
    config: Path, trained: Path
) -> None:
    succeed("train", config, "train.precision=bf16", "train.epochs=1", "--run-dir", "a [b] [/c]")
    coarse, exact = figures(Path("a [b] [/c]"))[0], figures(trained)[0]
    assert coarse["loss"] != exact["loss"]
    assert coarse["loss"] == pytest.approx(exact["loss"], rel=0.05)


def test_evaluate_gives_the_accuracy_of_the_result(trained: Path) -> None:
    report = json.loads(succeed("evaluate", trained, "--json").stdout)
    result = read_result(trained)
    assert report["accuracy"] == result["test_accuracy"]
    assert report["loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    assert report["count"] == TEST
    assert report["checkpoint"] == str(trained / "checkpoints" / f"step-{STEPS:08d}")
    told = succeed("evaluate", trained).stdout
    assert re.search(rf"test accuracy\W+{result['test_accuracy']:.2%} of {TEST} pictures", told)
    names = list(report["per_class"])
    assert names[0] in told
    assert report["interval"][0] < report["accuracy"] < report["interval"][1]
    kept = answers.load(trained / "answers-test.npz")
    assert [report["per_class"][name] for name in names] == kept.per_class(len(names))
    assert report["calibration_error"] == pytest.approx(kept.calibration_error(), rel=1e-5)


@pytest.mark.parametrize("loader", ["dali", "resident", "reference"])
def test_every_loader_scores_alike(trained: Path, loader: str) -> None:
    report = json.loads(succeed("evaluate", trained, "--json", "--loader", loader).stdout)
    result = read_result(trained)
    assert report["accuracy"] == result["test_accuracy"]
    assert report["loss"] == pytest.approx(result["test_loss"], rel=1e-6)


# Trains, and stands still for good in the middle of what the test asks for.
_STAND_STILL = """
import sys, time
from fasttrain.training import checkpoint, step

def stand_still_at(count, function):
    calls = []
    def counted(*arguments):
        calls.append(1)
        if len(calls) == count:
            print("here", flush=True)
            time.sleep(600)
        return function(*arguments)
    return counted

if sys.argv.pop(1) == "a step":
    step.TrainingStep.__call__ = stand_still_at(11, step.TrainingStep.__call__)
else:
    checkpoint.torch.save = stand_still_at(3, checkpoint.torch.save)
from fasttrain.cli import main
main()
"""


@pytest.mark.parametrize("moment", ["a step", "a checkpoint"])
def test_a_killed_run_goes_on_to_the_weights_of_an_undisturbed_one(
    moment: str, home: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTTRAIN_CACHE", str(home / "cache"))
    run = home / f"killed in {moment}"
    words = ("train", home / "config.yaml", "--run-dir", run)
    with subprocess.Popen(
        [sys.executable, "-c", _STAND_STILL, moment, *words],
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        patience = time.monotonic() + 60  # a thread writes it, which a busy disk may hold up
        while not place(run / "checkpoints", 8).exists() and time.monotonic() < patience:
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -signal.SIGKILL
    at = {"a step": 10, "a checkpoint": 12}[moment]
    # Past the checkpoint, in the middle of an epoch; one is written while the run goes on.
    assert figures(run)[-1]["step"] in ({at} if moment == "a step" else range(at, at + 5))
    assert not (run / "result.json").exists()

    ended = succeed(*words, "--resume")
    assert "goes on at step 8;" in ended.stderr
    assert weights(run) == weights(trained)
    assert figures(run) == figures(trained)
    for name in ("test_accuracy", "test_loss", "steps", "plan"):
        assert read_result(run)[name] == read_result(trained)[name]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
        path.name for path in sorted((trained / "checkpoints").iterdir())
    ]


def test_a_diverging_run_ends_with_code_3_and_the_mend(config: Path) -> None:
    ended = fasttrain("train", config, "optim.lr=1e6", "--run-dir", "run", "model.norm=none")
    last = ended.stderr.splitlines()[-1]
    assert ended.exit_code == 3
    assert last.startswith("fasttrain: training has diverged: the loss or gradient of step ")
    assert "lower optim.lr (now 1e+06)" in last
    assert "Traceback" not in ended.stderr
    assert not Path("run/result.json").exists()
    assert Path("run/config.yaml").exists()


def test_wandb_offline_writes_its_files_and_changes_no_result(
    home: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTTRAIN_CACHE", str(home / "cache"))
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    run = home / "tracked"
    succeed("train", home / "config.yaml", "track.wandb=offline", "--run-dir", run)
    (written,) = run.glob("wandb/offline-run-*/run-*.wandb")
    assert written.stat().st_size > 1000
    assert weights(run) == weights(trained)
    assert figures(run) == figures(trained)


# The other commands.


def test_data_is_prepared_once_and_shown_on_one_screen(config: Path) -> None:
    told = succeed("data", "prepare", config).stdout
    folder = Path(told.removeprefix("ready: ").rstrip("\n"))
    store = open_store(folder)
    assert (len(store.train.labels), len(store.test.labels)) == (TRAIN, TEST)
    before = folder.stat().st_mtime_ns
    assert succeed("data", "prepare", config).stdout == told
    assert folder.stat().st_mtime_ns == before

    shown = succeed("data", "info", config).stdout
    assert shown.count("\n") <= 40
    for part in (f"{TRAIN} training", f"{TEST} test", "16 x 16 pixels", "10: 0, 1, 2"):
        assert part in shown


@pytest.mark.usefixtures("here")
def test_the_doctor_fits_on_one_screen() -> None:
    shown = succeed("doctor").stdout
    assert shown.count("\n") <= 40
    for part in ("packages", "device", "compiler", "loader", "cache", "tracking", "processes"):
        assert part in shown


@pytest.mark.usefixtures("here")
def test_the_doctor_shows_a_path_that_looks_like_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTTRAIN_DATA", "a[b][/c]")
    assert "FASTTRAIN_DATA=a[b][/c] is not there" in succeed("doctor").stdout


@pytest.mark.usefixtures("here")
def test_the_doctor_names_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "fasttrain.observe.wandb", raising=False)
    monkeypatch.delattr(observe, "wandb", raising=False)
    assert "W&B cannot be used: wandb is missing" in succeed("doctor").stdout


@pytest.mark.parametrize(
    "words", [(), ("train",), ("evaluate",), ("status",), ("data",), ("doctor",)]
)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    assert "Usage:" in succeed(*words, "--help").stdout


@pytest.mark.parametrize(
    "words",
    [("trian",), ("train",), ("train", "--fast"), ("evaluate",), ("export", "run", "-o", "x.onnx")],
)
def test_a_wrong_command_line_is_refused_in_one_line(words: tuple[str, ...]) -> None:
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("fasttrain: ")
    assert refused.stderr.count("\n") == 1
    assert "\t" not in refused.stderr


@pytest.mark.parametrize(
    "words", [("train", ""), ("train", "a.yaml", "--run-dir", "", "--resume"), ("status", "a", "")]
)
def test_an_empty_path_is_not_the_folder_one_is_in(words: tuple[str, ...]) -> None:
    refused = fasttrain(*words)
    assert refused.exit_code == 2
    assert "the path is empty, as of a variable that is not set; name one" in refused.stderr


def test_a_name_that_breaks_the_line_does_not() -> None:
    refused = fasttrain("status", "a\nb")
    assert refused.stderr == (
        "fasttrain: a b: there is no run here (no config.yaml); name a folder under runs/\n"
    )


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("trian",), "fasttrain"),
        (("train",), "fasttrain train"),
        (("train", "--lr", "3"), "fasttrain train"),
        (("data", "prepare"), "fasttrain data prepare"),
        (("doctor", "--config", "a.yaml"), "fasttrain doctor"),
    ],
)
def test_a_wrong_command_line_is_answered_with_the_help_of_its_command(
    words: tuple[str, ...], command: str
) -> None:
    assert fasttrain(*words).stderr.endswith(f"({command} --help tells more)\n")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("train",), ("example: fasttrain train configs/baseline.yaml train.epochs=20\n",)),
        (("evaluate",), ("Test-time views; by default the run's own", "pictures; by default")),
        (("predict",), ("Threads that decode pictures; by default one a core",)),
        (("doctor",), ("Under a launcher: whether its processes fit together",)),
        (
            ("data", "prepare"),
            ("Share of each class to take for the test, such as 0.2, where DIR has no",),
        ),
        (("data", "preview"), ("A PNG file to write", "Rows.", "Columns")),
    ],
    ids=" ".join,
)
def test_help_says_what_an_option_is(words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    told = CliRunner().invoke(main, [*words, "--help"], terminal_width=200).stdout
    for part in parts:
        assert part in told


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (("--lr", "3"), "optim.lr=VALUE"),
        (("--epochs=3",), "train.epochs=VALUE"),
        (("--batch-size", "64"), "data.batch_size=VALUE"),
        (("--train.epochs=3",), "train.epochs=VALUE"),
        (("--every=3",), "schedule.every=VALUE or checkpoint.every=VALUE"),
    ],
)
def test_a_setting_that_is_written_like_an_option_is_answered_with_its_form(
    words: tuple[str, ...], written: str, config: Path
) -> None:
    line = refusal("train", config, *words)
    option = words[0].partition("=")[0]
    assert f"no option is called {option}; a setting is written without dashes: {written}" in line


def test_an_option_that_is_misspelt_is_answered_with_the_nearest(config: Path) -> None:
    assert "Did you mean '--resume'?" in refusal("train", config, "--resum")
    assert "without dashes" not in refusal("evaluate", config, "--lr", "3")


def test_weights_that_are_no_numbers_never_become_a_checkpoint(config: Path) -> None:
    words = ("train.log_every=100epochs", "checkpoint.every=1steps", "model.norm=none")
    ended = fasttrain("train", config, "optim.lr=1e20", *words, "--run-dir", "run")
    assert ended.exit_code == 3
    for saved in Path("run").glob("checkpoints/step-*/model.safetensors"):
        assert all(value.isfinite().all() for value in load_file(saved).values())


def test_a_run_does_not_go_on_under_other_settings(home: Path, trained: Path) -> None:
    run = shutil.copytree(trained, home / "other-settings")
    (run / "result.json").unlink()
    line = refusal("train", home / "config.yaml", "optim.lr=0.5", "--run-dir", run, "--resume")
    assert "optim.lr=0.5 (it was " in line
    assert "config.yaml" in line


def test_a_run_is_not_scored_on_other_pictures(home: Path, trained: Path) -> None:
    run = shutil.copytree(trained, home / "other-pictures")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["path"] = str(write_zip(home / "other.zip", make_pictures(60, 30)))
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert "other pictures" in refusal("evaluate", run)
