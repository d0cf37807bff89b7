"""A run has a folder of its own, and no other run's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fasttrain.config import Config, Train, load
from fasttrain.errors import UserError
from fasttrain.observe.choosing import choose
from fasttrain.observe.folder import RunFolder, open_run

CONFIG = Config(name="mine", seed=5)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run that was begun and not finished."""
    folder = RunFolder(tmp_path / "run")
    folder.begin(CONFIG)
    return folder.path


@pytest.fixture
def complete(begun: Path) -> Path:
    RunFolder(begun).finish({"test_accuracy": 0.5})
    return begun


def test_without_a_name_a_run_gets_a_new_folder_under_runs() -> None:
    path = choose(CONFIG, None, resume=False).path
    assert re.fullmatch(r"runs/mine-\d{8}-\d{6}", str(path))


def test_choosing_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    choose(CONFIG, None, resume=False)
    choose(CONFIG, tmp_path / "run", resume=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_holds_no_run_yet_is_taken(tmp_path: Path, resume: bool) -> None:
    """With `resume` too: a job that is sent again after a crash may not have begun."""
    assert choose(CONFIG, tmp_path / "run", resume).path == tmp_path / "run"
    (tmp_path / "run").mkdir()
    assert choose(CONFIG, tmp_path / "run", resume).path == tmp_path / "run"


@pytest.mark.parametrize(
    "name", ["cat.png", "src/main.py", "data/train/cat.png", "logs/notes.md", "wandb/sent.json"]
)
def test_a_folder_of_other_files_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    with pytest.raises(UserError) as caught:
        choose(CONFIG, tmp_path, resume=False)
    assert str(caught.value) == (
        f"{tmp_path} holds other files, such as {file}; choose a new or empty folder as --run-dir"
    )
    assert choose(CONFIG, tmp_path, resume=True).path == tmp_path  # a job script knows its folder


@pytest.mark.parametrize(
    "name",
    [
        ".lock", ".cache/kernel.so", ".heartbeat.json.1.part", "mine.yaml", "mine.yml",
        "stacks-rank0.txt", "compiled/ab/kernel.so", "checkpoints/",
        "slurm-12.out", "train.log", "12.err", "nohup.out", "log", "lost+found/",
        "logs/none_1a2b/attempt_0/0/stdout.log", "logs/none_1a2b/attempt_0/0/error.json",
    ],
)  # fmt: skip
def test_what_lies_in_a_folder_before_a_run_begins_is_no_hindrance(
    tmp_path: Path, name: str
) -> None:
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
        place.mkdir()
    else:
        place.touch()
    assert choose(CONFIG, tmp_path, resume=False).path == tmp_path


def test_a_folder_that_holds_a_run_is_refused(begun: Path) -> None:
    with pytest.raises(UserError) as caught:
        choose(CONFIG, begun, resume=False)
    assert str(caught.value) == (
        f"{begun} already holds a run; add --resume to go on with it, or choose another --run-dir"
    )


def test_a_run_that_is_not_finished_is_resumed(begun: Path) -> None:
    assert choose(CONFIG, begun, resume=True).path == begun


@pytest.mark.parametrize("allowed", [False, True], ids=["plain", "--allow-changes"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 6), ("data.batch_size", 64), ("data.augment", ["flip"]), ("data.validation", 9),
        ("data.dataset", "shapes"), ("data.size", 8), ("data.test_share", 0.5),
        ("data.split_seed", 1),
    ],
)  # fmt: skip
def test_what_decides_the_batches_cannot_change(
    key: str, value: object, allowed: bool, tmp_path: Path
) -> None:
    settings = {"dataset": "folder", "path": tmp_path, "test_share": 0.25}
    before = Config.model_validate({"data": settings, "seed": 5})
    RunFolder(tmp_path / "run").begin(before)
    changed = {"data": settings, "seed": 5, "train": {"clip_norm": 1.0}}
    if key == "data.dataset":
        settings.pop("test_share")
    room = changed["data"] if key.startswith("data.") else changed
    room[key.rpartition(".")[2]] = value
    with pytest.raises(UserError) as caught:
        choose(Config.model_validate(changed), tmp_path / "run", resume=True, changed=allowed)
    message = str(caught.value)
    assert re.search(rf"train\.clip_norm=1\.0 \(it was None\); .* depend on {key}[,;]", message)
    assert "--allow-changes" not in message


def test_other_settings_may_change_where_that_is_allowed(begun: Path) -> None:
    changed = CONFIG.model_copy(update={"train": Train(clip_norm=1.0)})
    with pytest.raises(UserError, match=r"clip_norm=1\.0 \(it was None\); .*--allow-changes"):
        choose(changed, begun, resume=True)
    assert choose(changed, begun, resume=True, changed=True).path == begun


@pytest.mark.parametrize("allowed", [False, True], ids=["plain", "--allow-changes"])
def test_nothing_of_a_run_that_is_complete_can_change(complete: Path, allowed: bool) -> None:
    changed = CONFIG.model_copy(update={"train": Train(clip_norm=1.0)})
    with pytest.raises(UserError, match=r"clip_norm=1\.0 \(it was None\)") as caught:
        choose(changed, complete, resume=True, changed=allowed)
    assert "--allow-changes" not in str(caught.value)


def test_a_run_that_is_complete_is_left_alone(complete: Path) -> None:
    with pytest.raises(UserError, match="holds a run"):
        choose(CONFIG, complete, resume=False)


def test_a_run_that_was_killed_as_it_ended_is_complete(complete: Path) -> None:
    folder = choose(CONFIG, complete, resume=True)
    folder.conclude("running", None)
    assert folder.finished() == {"test_accuracy": 0.5}
    assert json.loads(folder.outcome.read_text())["outcome"] == "complete"


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff", "[" * 9999])
def test_a_result_that_cannot_be_read_is_one_line(complete: Path, content: str) -> None:
    folder = RunFolder(complete)
    folder.result.write_text(content, encoding="latin-1")
    folder.conclude("running", None)
    with pytest.raises(UserError, match=r"result\.json: cannot be read; delete it") as caught:
        folder.finished()
    assert "\n" not in str(caught.value)
    assert json.loads(folder.outcome.read_text())["outcome"] == "running"


def test_a_run_that_goes_on_is_not_finished(begun: Path) -> None:
    assert RunFolder(begun).finished() is None


def test_to_resume_one_names_the_run() -> None:
    with pytest.raises(UserError, match="--resume needs --run-dir DIR"):
        choose(CONFIG, None, resume=True)


@pytest.mark.parametrize("name", [None, "run"])
def test_other_settings_are_for_a_run_that_goes_on(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(UserError, match="--allow-changes needs --resume"):
        choose(CONFIG, tmp_path / name if name else None, resume=False, changed=True)


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match=r"cannot write .*/run"):
        choose(CONFIG, tmp_path / "run", resume=False).begin(CONFIG)


def test_what_ran_is_written_with_every_default(begun: Path) -> None:
    assert load(begun / "config.yaml") == CONFIG
    assert "momentum: 0.9" in (begun / "config.yaml").read_text()


def test_where_it_ran_is_written_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-key")
    folder = RunFolder(tmp_path / "run")
    folder.begin(CONFIG)
    written = (folder.path / "environment.json").read_text()
    about = json.loads(written)
    assert about["packages"]["torch"]
    assert about["cores"] >= 1
    assert {"command", "commit", "python", "system", "processor", "gpus"} <= about.keys()
    assert "a-secret-key" not in written


def test_the_result_is_there_when_the_run_is_complete(begun: Path) -> None:
    folder = RunFolder(begun)
    assert not folder.result.exists()
    folder.finish({"test_accuracy": 0.5})
    assert json.loads(folder.result.read_text()) == {"test_accuracy": 0.5}


def test_a_run_is_opened_with_what_ran(begun: Path) -> None:
    folder, config = open_run(begun)
    assert (folder.path, config) == (begun, CONFIG)


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_where_there_is_no_run_none_is_opened(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="there is no run here"):
        open_run(tmp_path / path)


@pytest.mark.parametrize(
    ("name", "what"), [("mine.yaml", "a configuration"), ("model.onnx", "a file")]
)
def test_a_file_is_no_run(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError) as caught:
        open_run(tmp_path / name)
    assert str(caught.value) == (
        f"{tmp_path / name}: this is {what}, not a run; name a folder under runs/"
    )


def test_two_runs_of_one_second_get_two_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fasttrain.observe.folder.time.strftime", lambda _: "20260101-000000")
    first = choose(Config(name="twin"), None, resume=False)
    first.path.mkdir(parents=True)
    second = choose(Config(name="twin"), None, resume=False)
    assert first.path != second.path
