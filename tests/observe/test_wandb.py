"""Weights & Biases is shown the journal, offline too, and can never stop a run."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import wandb
from rich.console import Console

from fasttrain.config import Config
from fasttrain.observe.journal import Journal, Record, read
from fasttrain.observe.wandb import WandbSink, has_key

TRAIN: Record = {"kind": "train", "step": 7, "epoch": 2, "loss": 0.5, "accuracy": 0.25}
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


class FakeRun:
    """In place of a run of W&B: remembers, or fails where it is told to."""

    def __init__(self, fail_in: str = "") -> None:
        self.fail_in = fail_in
        self.calls: list[tuple[str, Any, Any]] = []

    def log(self, figures: dict[str, float], step: int) -> None:
        self.calls.append(("log", figures, step))
        if self.fail_in == "log":
            raise ConnectionError("the server [/is] gone\nfor good")

    def finish(self) -> None:
        self.calls.append(("finish", None, None))
        if self.fail_in == "finish":
            raise ConnectionError("the server [/is] gone\nfor good")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How wandb.init was called."""
    calls: list[dict[str, Any]] = []

    def init(**arguments: Any) -> FakeRun:
        calls.append(arguments)
        return FakeRun()

    monkeypatch.setattr(wandb, "init", init)
    return calls


def use(monkeypatch: pytest.MonkeyPatch, run: FakeRun) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: run)


# What it is shown


def test_records_are_logged_under_their_kind_or_split_at_their_step(
    folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FakeRun()
    use(monkeypatch, run)
    sink = WandbSink(config("offline"), folder, told.console)
    sink.show(TRAIN)
    sink.show(VALIDATION)
    sink.close()
    assert run.calls == [
        ("log", {"train/epoch": 2, "train/loss": 0.5, "train/accuracy": 0.25}, 7),
        (
            "log",
            {
                "validation/epoch": 2,
                "validation/loss": 0.5,
                "validation/accuracy": 0.25,
                "validation/count": 10,
            },
            7,
        ),
        ("finish", None, None),
    ]
    assert told.lines == []


def test_the_run_has_the_name_of_its_folder_and_is_gone_on_with(
    folder: Path, told: Told, started: list[dict[str, Any]]
) -> None:
    WandbSink(config("offline"), folder, told.console)
    assert {
        "project": "ours",
        "name": "my-run",
        "id": "my-run",
        "resume": "allow",
        "dir": str(folder),
        "mode": "offline",
        "config": config("offline").model_dump(mode="json"),
    }.items() <= started[0].items()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Listens where W&B is said to be."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_offline_the_figures_are_on_disk_and_no_one_is_called(
    folder: Path, told: Told, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
    sink = WandbSink(config("offline"), folder, told.console)
    sink.show({**TRAIN, "loss": 0.123456789})
    sink.close()
    wandb.teardown()  # as at the end of the process: the last lines are written now
    assert told.lines == []
    (written,) = folder.glob("wandb/offline-run-*/*.wandb")
    content = written.read_bytes()
    assert b"train/loss" in content
    assert b"0.123456789" in content
    with pytest.raises(BlockingIOError):
        server.accept()


# Online, offline, or as it comes


def test_auto_is_offline_where_no_key_is_configured(
    folder: Path, told: Told, started: list[dict[str, Any]]
) -> None:
    WandbSink(config("auto"), folder, told.console)
    assert started[0]["mode"] == "offline"


def test_auto_is_online_where_a_key_is_configured(
    folder: Path, told: Told, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    WandbSink(config("auto"), folder, told.console)
    assert started[0]["mode"] == "online"


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_what_was_asked_for_is_what_is_done(
    folder: Path, told: Told, started: list[dict[str, Any]], mode: str
) -> None:
    WandbSink(config(mode), folder, told.console)
    assert started[0]["mode"] == mode


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


def keep_journal(sink: WandbSink, path: Path) -> None:
    journal = Journal(path, [sink])
    for record in (TRAIN, VALIDATION, {**TRAIN, "step": 8}):
        journal.write(record)
    journal.close()


def test_a_start_that_fails_is_told_once_and_the_run_goes_on(
    folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise wandb.errors.CommError("no [/route] to\nthe host")

    monkeypatch.setattr(wandb, "init", init)
    keep_journal(WandbSink(config("online"), folder, told.console), folder / "metrics.jsonl")
    assert told.lines == [
        "W&B is left out of this run (no [/route] to the host); the figures are in metrics.jsonl"
    ]
    assert len(read(folder / "metrics.jsonl")) == 3


@pytest.mark.parametrize(("fail_in", "calls"), [("log", 1), ("finish", 4)])
def test_a_failure_on_the_way_is_told_once_and_the_run_goes_on(
    folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch, fail_in: str, calls: int
) -> None:
    run = FakeRun(fail_in)
    use(monkeypatch, run)
    keep_journal(WandbSink(config("online"), folder, told.console), folder / "metrics.jsonl")
    assert told.lines == [
        "W&B is left out of this run (the server [/is] gone for good); "
        "the figures are in metrics.jsonl"
    ]
    assert len(read(folder / "metrics.jsonl")) == 3
    assert len(run.calls) == calls


def test_an_error_without_words_is_told_by_its_name(
    folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(wandb, "init", init)
    WandbSink(config("online"), folder, told.console)
    assert "(TimeoutError)" in told.lines[0]


def test_a_user_who_interrupts_is_obeyed(
    folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(KeyboardInterrupt):
        WandbSink(config("online"), folder, told.console)
