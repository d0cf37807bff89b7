"""Weights & Biases is shown the journal, offline too, and can never stop a run."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import wandb
from PIL import Image
from rich.console import Console
from wandb.proto import wandb_internal_pb2

from fasttrain.answers import Answers
from fasttrain.config import Config
from fasttrain.files import write_text
from fasttrain.observe.journal import Record, read
from fasttrain.observe.tracking import STATUS, WandbSink
from fasttrain.observe.wandb import Sender, figures, has_key

SPEED = {"steps": 7, "images_per_second": 9.5, "data_stall": 0.0, "seconds": 2.5}
SEEN: Record = {"kind": "train", "step": 7, "epoch": 2, "loss": 0.5, "accuracy": 0.25}
TRAIN: Record = {**SEEN, **SPEED}
LONG = pytest.mark.long
VALIDATION: Record = {**TRAIN, "kind": "evaluation", "split": "validation", "count": 10}


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()  # it reads the environment once
    yield
    wandb.teardown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my-run").mkdir()
    return tmp_path / "my-run"


class Told:
    """A console of 40 columns, and the lines that were printed on it."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self.console = Console(file=self._file, width=40)

    @property
    def lines(self) -> list[str]:
        return self._file.getvalue().splitlines()


@pytest.fixture
def told() -> Told:
    return Told()


def config(mode: str) -> Config:
    return Config.model_validate({"name": "mine", "track": {"wandb": mode, "project": "ours"}})


# What is sent


def test_figures_stand_under_their_kind_or_split() -> None:
    assert figures(SEEN) == {"train/epoch": 2, "train/loss": 0.5, "train/accuracy": 0.25}
    assert figures(VALIDATION)["validation/count"] == 10
    scored = {**VALIDATION, "per_class": [0.5, None, 0.25]}
    assert figures(scored, ["cat", "dog", "emu"]).items() >= {
        ("validation/per_class/cat", 0.5), ("validation/per_class/emu", 0.25)
    }  # fmt: skip
    assert "validation/per_class/dog" not in figures(scored, ["cat", "dog", "emu"])
    rollback = {"kind": "rollback", "step": 8, "epoch": 2, "to": 6}
    assert figures(rollback) == {"rollback/epoch": 2, "rollback/to": 6}


def keep(folder: Path, told: Told, *records: Record, mode: str = "offline") -> None:
    """Follow a run that writes these records, to its end."""
    (folder / "config.yaml").write_text(config(mode).to_yaml())
    sink = WandbSink(config(mode).track, folder, told.console)
    with (folder / "metrics.jsonl").open("a") as journal:
        journal.writelines(json.dumps(record) + "\n" for record in records)
    sink.close()


def content(folder: Path) -> list[bytes]:
    """The files of all processes of the run, oldest first."""
    written = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.parent.name)
    return [path.read_bytes() for path in written]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Listens where W&B is said to be, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_offline_the_figures_are_on_disk_and_no_one_is_called(
    folder: Path, told: Told, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
    keep(folder, told, {**TRAIN, "loss": 0.123456789}, VALIDATION)
    (written,) = content(folder)
    assert b"train/loss" in written
    assert b"0.123456789" in written
    assert b"validation/count" in written
    assert b"my-run" in written
    (line,) = told.lines
    assert line.startswith("W&B: offline; to send it later: wandb sync ")
    assert Path(line.split()[-1]).is_dir()
    with pytest.raises(BlockingIOError):
        server.accept()


def test_the_line_that_sends_it_later_can_be_typed(tmp_path: Path, told: Told) -> None:
    folder = tmp_path / 'my runs\' "best"'
    (folder / "wandb" / "offline-run-1").mkdir(parents=True)
    keep(folder, told)
    (line,) = told.lines
    words = shlex.split(line.partition("later: ")[2])
    assert words[:2] == ["wandb", "sync"]
    assert len(words) >= 3
    assert all(Path(word).is_dir() for word in words[2:])


def test_a_complete_run_leaves_its_confusion_and_what_the_model_saw(
    folder: Path, told: Told
) -> None:
    (folder / "result.json").write_text("{}")
    (folder / "data.json").write_text('{"classes": ["cat", "dog"]}')
    label, answer = np.array([0, 0, 1]), np.array([0, 1, 1])
    sure = np.array([0.9, 0.8, 0.7], dtype=np.float32)
    Answers(label, answer, sure, label, sure).save(folder / "answers-test.npz")
    Image.new("RGB", (4, 4)).save(folder / "samples.png")
    keep(folder, told, TRAIN)
    (written,) = content(folder)
    assert b"test/confusion" in written
    assert b"samples" in written
    assert list(folder.rglob("media/images/samples*.png"))
    assert list(folder.rglob("media/table/test/confusion*"))


def test_a_run_that_goes_on_sends_what_was_not_sent(folder: Path, told: Told) -> None:
    keep(folder, told, {**TRAIN, "loss": 0.111111111})
    keep(folder, told, {**TRAIN, "step": 8, "loss": 0.222222222})
    first, second = content(folder)
    assert b"0.111111111" in first
    assert b"0.222222222" in second
    assert b"0.111111111" not in second


def ids(folder: Path) -> list[str]:
    """What the run goes by at W&B, for each of its processes."""
    files = folder.glob("wandb/offline-run-*/run-*.wandb")
    return [path.stem.removeprefix("run-") for path in files]


def test_a_folder_may_have_any_name(tmp_path: Path, told: Told) -> None:
    folder = tmp_path / "lr=0.1,wd=0.05"
    folder.mkdir()
    keep(folder, told, TRAIN)
    (written,) = content(folder)
    assert b"train/loss" in written
    assert folder.name.encode() in written


def test_the_folder_one_stands_in_is_shown_by_its_name(
    folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    keep(Path(), told, TRAIN)
    (written,) = content(folder)
    assert b"my-run" in written


def test_folders_that_share_a_name_are_two_runs(tmp_path: Path, told: Told) -> None:
    for sweep in ("a", "b"):
        (tmp_path / sweep / "run").mkdir(parents=True)
        keep(tmp_path / sweep / "run", told, TRAIN)
    assert ids(tmp_path / "a" / "run") != ids(tmp_path / "b" / "run")


def test_a_copy_of_a_folder_is_a_run_of_its_own(tmp_path: Path, told: Told) -> None:
    (tmp_path / "a").mkdir()
    keep(tmp_path / "a", told, TRAIN)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    keep(tmp_path / "b", told, TRAIN)
    (first,) = ids(tmp_path / "a")
    assert set(ids(tmp_path / "b")) > {first}


@pytest.mark.parametrize("named", [False, True], ids=["a new one", "once sent under its name"])
def test_a_run_that_goes_on_is_the_same_one(folder: Path, told: Told, named: bool) -> None:
    if named:
        write_text(folder / "wandb" / "sent.json", '{"records": 0}')
    for _ in range(2):
        keep(folder, told, TRAIN)
    first, second = ids(folder)
    assert first == second
    assert (first == "my-run") == named


def test_the_follower_ends_with_a_trainer_that_is_killed(folder: Path, told: Told) -> None:
    (folder / "config.yaml").write_text(config("offline").to_yaml())
    (folder / "metrics.jsonl").write_text(json.dumps({**TRAIN, "loss": 0.333333333}) + "\n")
    child = os.fork()
    if child == 0:
        WandbSink(config("offline").track, folder, told.console)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    status, end = folder / "wandb" / STATUS, time.monotonic() + 60
    while not (status.exists() and json.loads(status.read_text())["done"]):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert b"0.333333333" in content(folder)[0]


@pytest.mark.long
def test_after_two_kills_every_figure_of_the_journal_is_there_once(tmp_path: Path) -> None:
    """Each of its processes leaves a file; what they hold together is read back."""
    script = Path(__file__).with_name("killed_twice.py")
    subprocess.run([sys.executable, script, tmp_path / "my-run"], check=True, timeout=250)
    journal = read(tmp_path / "my-run" / "metrics.jsonl")
    sent = [record for file in content(tmp_path / "my-run") for record in history(file)]
    steps = [record["_step"] for record in sent]
    assert steps == sorted(steps)
    for kind in ("train", "validation", "test"):
        ours = [(one["step"], one["loss"]) for one in journal
                if one.get("split", one["kind"]) == kind]  # fmt: skip
        theirs = [(one["_step"], one[f"{kind}/loss"]) for one in sent if f"{kind}/loss" in one]
        assert theirs == ours != []
    assert len(content(tmp_path / "my-run")) == 3


def history(content: bytes) -> Iterator[dict[str, Any]]:
    """What was logged, from a `.wandb` file: a LevelDB log of protocol-buffer records."""
    whole, at = b"", 7  # behind the file's own header
    while at + 7 <= len(content):
        left = 32_768 - at % 32_768
        if left < 7:  # a block's end is padded
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            record = wandb_internal_pb2.Record.FromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                yield {"/".join(item.nested_key) or item.key: json.loads(item.value_json)
                       for item in record.history.item}  # fmt: skip


# Online, offline, or as it comes


def test_auto_is_online_where_a_key_is_configured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Sender("auto", "ours", folder)._mode == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert Sender("auto", "ours", folder)._mode == "online"
    assert Sender("offline", "ours", folder)._mode == "offline"


def log_in(file: Path, host: str) -> None:
    file.write_text(f"machine {host} login user password {'x' * 40}\n")
    file.chmod(0o600)


def test_a_login_is_a_key(tmp_path: Path) -> None:
    assert not has_key()
    log_in(tmp_path / ".netrc", "elsewhere.org")
    assert not has_key()
    log_in(tmp_path / ".netrc", urlsplit(wandb.setup().settings.base_url).netloc)
    assert has_key()


def test_a_login_from_before_the_service_was_renamed_is_a_key(tmp_path: Path) -> None:
    log_in(tmp_path / ".netrc", "api.wandb.ai")
    assert has_key()


def test_a_login_is_a_key_for_its_own_server_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.my-house.org:8080")
    log_in(tmp_path / ".netrc", "api.wandb.ai")
    assert not has_key()
    log_in(tmp_path / ".netrc", "wandb.my-house.org:8080")
    assert has_key()


def test_logins_are_read_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(tmp_path / "logins", "api.wandb.ai")
    assert not has_key()
    monkeypatch.setenv("NETRC", str(tmp_path / "logins"))
    assert has_key()


def test_a_broken_login_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("what is this")
    assert not has_key()


# Trouble


@pytest.mark.parametrize(
    ("key", "listens"),
    [
        (None, False),
        pytest.param("0123456789" * 4, False, marks=LONG),
        pytest.param("0123456789" * 4, True, marks=LONG),
    ],
    ids=["no key", "a server that refuses", "a server that never answers"],
)
def test_without_a_key_or_a_server_all_is_kept_and_one_line_says_how_to_send_it(
    folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch, key: str | None, listens: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)
        if not listens:
            server.close()
        start = time.monotonic()
        keep(folder, told, TRAIN, mode="online")
        assert time.monotonic() - start < 90
    (line,) = told.lines
    assert line.startswith("W&B: ")
    assert "to send it later: wandb sync " in line
    assert any(b"train/loss" in one for one in content(folder))


def test_a_follower_that_cannot_start_is_told_and_the_run_goes_on(
    folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    keep(folder, told, TRAIN)
    assert told.lines == ["W&B: not finished (it did not start); the figures are in metrics.jsonl"]
