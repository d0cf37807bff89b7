"""The port answers Prometheus and a scheduler, and is refused in time where it cannot be had."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from fasttrain.cli import main
from fasttrain.config import Config
from fasttrain.errors import UserError
from fasttrain.observe.folder import RunFolder
from fasttrain.observe.heartbeat import Heartbeat
from fasttrain.observe.metrics import serving
from fasttrain.watchdog import Watchdog
from tests.observe.test_heartbeat import CONFIG, SCORED, TRAIN, save


@pytest.fixture
def watchdog(tmp_path: Path) -> Watchdog:
    return Watchdog(60, tmp_path / "stacks.txt")


@pytest.fixture
def heartbeat(tmp_path: Path, watchdog: Watchdog) -> Iterator[Heartbeat]:
    folder = RunFolder(tmp_path)
    save(folder, 15, age=30)
    beating = Heartbeat(folder, CONFIG, watchdog)
    beating.begin(20, 40, [TRAIN, SCORED])
    yield beating
    beating.close()


@pytest.fixture
def address(heartbeat: Heartbeat) -> Iterator[str]:
    said: list[str] = []
    with serving(0, heartbeat, said.append):
        (line,) = said
        assert line.startswith("metrics: http://")
        port = int(line.split("/metrics")[0].rsplit(":", 1)[1])
        yield f"http://127.0.0.1:{port}"


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_prometheus_reads_every_figure(address: str, heartbeat: Heartbeat) -> None:
    while heartbeat.figures()["checkpoint_step"] is None:
        pass  # the thread looks for it
    code, text = get(f"{address}/metrics")
    assert code == 200
    families = {one.name: one for one in text_string_to_metric_families(text)}
    values = {name: one.samples[0].value for name, one in families.items()}
    assert values.pop("fasttrain_checkpoint_age_seconds") == pytest.approx(30, abs=20)
    assert values.pop("fasttrain_idle_seconds") == pytest.approx(0, abs=20)
    assert values == {
        "fasttrain_step": 20, "fasttrain_steps": 40, "fasttrain_epoch": 2,
        "fasttrain_images_per_second": 900, "fasttrain_data_stall_ratio": 0.125,
        "fasttrain_loss": 1.5, "fasttrain_accuracy": 0.25, "fasttrain_validation_accuracy": 0.375,
        "fasttrain_checkpoint_step": 15, "fasttrain_restarts": 1,
    }  # fmt: skip
    assert all(one.documentation for one in families.values())
    kinds = {name: one.type for name, one in families.items()}
    assert kinds.pop("fasttrain_restarts") == "counter"
    assert set(kinds.values()) == {"gauge"}


def test_health_follows_the_loop(address: str, watchdog: Watchdog) -> None:
    assert get(f"{address}/healthz") == (200, "ok\n")
    watchdog.alive_at -= 31
    assert get(f"{address}/healthz") == (503, "stalled\n")
    watchdog.alive(21)
    assert get(f"{address}/healthz?verbose=1") == (200, "ok\n")


def test_nothing_else_is_answered(address: str) -> None:
    assert get(f"{address}/")[0] == 404
    assert get(f"{address}/metricsx")[0] == 404


def test_what_is_not_known_yet_is_left_out(tmp_path: Path, watchdog: Watchdog) -> None:
    said: list[str] = []
    with serving(0, Heartbeat(RunFolder(tmp_path), CONFIG, watchdog), said.append):
        port = said[0].split("/metrics")[0].rsplit(":", 1)[1]
        text = get(f"http://127.0.0.1:{port}/metrics")[1]
        assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
    assert "fasttrain_loss" not in text
    assert "None" not in text


def test_without_a_port_there_is_none(heartbeat: Heartbeat) -> None:
    said: list[str] = []
    with serving(None, heartbeat, said.append):
        assert said == []


def test_a_missing_library_is_named_with_the_mend(
    heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UserError, match="pip install prometheus-client"):
        serving(0, heartbeat, print).__enter__()


def test_a_port_in_use_ends_a_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Config.model_validate({"data": {"dataset": "shapes"}, "train": {"device": "cpu"}})
    Path("config.yaml").write_text(settings.to_yaml())
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["train", "config.yaml", "--run-dir", "run", f"track.metrics_port={port}"]
        refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"fasttrain: track.metrics_port={port} is in use on ")
    assert refused.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
