"""Checkpoints are whole or passed over, and reading one runs nothing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fasttrain.errors import UserError
from fasttrain.training import checkpoint

REPOSITORY = Path(__file__).parent.parent.parent


def build(seed: int = 0, widths: tuple[int, int] = (4, 3)) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, widths[0]), nn.BatchNorm1d(widths[0]), nn.Linear(*widths))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        model(torch.randn(8, 2, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)


def snapshot(
    step: int, model: nn.Module, state: dict[str, Any], score: float | None = None
) -> checkpoint.Snapshot:
    weights = checkpoint.weights_of(model)
    return checkpoint.Snapshot(step, weights, None, checkpoint.copy(state), score)


def save(root: Path, step: int, keep: int = 2, score: float | None = None) -> Path:
    one = snapshot(step, build(step), {"step": step}, score)
    return checkpoint.save(root, one, keep, best=score is not None)


def names(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir())


def reseal(folder: Path) -> None:
    """Make the manifest fit what lies there."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# There and back


def test_a_checkpoint_holds_the_weights_the_buffers_and_the_state(tmp_path: Path) -> None:
    model = build()
    optimizer = sgd(model)
    train(model, optimizer, 3)
    state = {
        "step": 3,
        "plan": "abc",
        "optimizer": optimizer.state_dict(),
        "clock": {"images": 5, "train": 0.25},
    }
    folder = checkpoint.save(tmp_path, snapshot(3, model, state), keep=2)
    assert names(folder) == ["manifest.json", "model.safetensors", "state.pt"]

    other = build(seed=1)
    checkpoint.load_weights(folder, other)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    found = checkpoint.load_state(folder)
    assert {key: found[key] for key in ("step", "plan", "clock")} == {
        key: state[key] for key in ("step", "plan", "clock")
    }
    resumed = sgd(other)
    resumed.load_state_dict(found["optimizer"])
    train(model, optimizer, 2)
    train(other, resumed, 2)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_weights_stand_under_the_names_of_the_model(tmp_path: Path) -> None:
    weights = load_file(save(tmp_path, 1) / "model.safetensors")
    assert weights.keys() == build().state_dict().keys()


def test_weights_in_channels_last_memory_come_back_as_they_were(tmp_path: Path) -> None:
    model = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
    folder = checkpoint.save(tmp_path, snapshot(1, model, {}), keep=1)
    other = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
    checkpoint.load_weights(folder, other)
    assert torch.equal(other.weight, model.weight)
    assert other.weight.is_contiguous(memory_format=torch.channels_last)


# The newest good one


def test_the_newest_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    for step in (99, 100, 1000):
        save(tmp_path, step, keep=5)
    assert checkpoint.newest(tmp_path) == (tmp_path / "step-00001000", [])


def test_where_there_are_none_none_is_found(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) == (None, [])
    assert checkpoint.newest(tmp_path / "nowhere") == (None, [])


def flip_bit(file: Path, position: int) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[position] ^= 1
    file.write_bytes(damaged)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def set_format(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("model.safetensors", lambda file: flip_bit(file, -1), "the checksum of model.safetensors"),
    ("model.safetensors", lambda file: flip_bit(file, 0), "the checksum of model.safetensors"),
    ("model.safetensors", truncate, "the checksum of model.safetensors does not hold"),
    ("model.safetensors", Path.unlink, "model.safetensors is missing"),
    ("state.pt", lambda file: flip_bit(file, 200), "the checksum of state.pt does not hold"),
    ("state.pt", truncate, "the checksum of state.pt does not hold"),
    ("state.pt", lambda file: file.write_bytes(b""), "the checksum of state.pt does not hold"),
    ("state.pt", Path.unlink, "state.pt is missing"),
    ("manifest.json", Path.unlink, "manifest.json is missing"),
    ("manifest.json", truncate, "manifest.json cannot be read"),
    ("manifest.json", lambda file: file.write_text(""), "manifest.json cannot be read"),
    ("manifest.json", lambda file: file.write_text("[]"), "manifest.json cannot be read"),
    ("manifest.json", lambda file: file.write_text("{}"), "manifest.json cannot be read"),
    ("manifest.json", lambda file: file.write_bytes(b"\xff"), "manifest.json cannot be read"),
    ("manifest.json", set_format, "it has format 99, not 1"),
]


@pytest.mark.parametrize(("file", "damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_reason(
    tmp_path: Path, file: str, damage: Callable[[Path], object], reason: str
) -> None:
    good, bad = save(tmp_path, 10), save(tmp_path, 20)
    damage(bad / file)
    found, passed_over = checkpoint.newest(tmp_path)
    assert found == good
    assert len(passed_over) == 1
    assert passed_over[0].startswith(f"{bad}: {reason}")
    assert len(passed_over[0].splitlines()) == 1


def test_where_all_are_damaged_every_reason_is_told(tmp_path: Path) -> None:
    for step in (10, 20):
        (save(tmp_path, step) / "state.pt").unlink()
    found, passed_over = checkpoint.newest(tmp_path)
    assert found is None
    assert passed_over == [f"{tmp_path}/step-{step:08d}: state.pt is missing" for step in (20, 10)]


def test_a_file_in_place_of_a_folder_is_passed_over(tmp_path: Path) -> None:
    good = save(tmp_path, 10)
    (tmp_path / "step-00000020").touch()
    found, passed_over = checkpoint.newest(tmp_path)
    assert found == good
    assert len(passed_over) == 1


def test_what_was_never_renamed_is_no_checkpoint_and_goes_with_the_next(tmp_path: Path) -> None:
    good = save(tmp_path, 10)
    left = tmp_path / ".step-00000020.x7y.part"
    shutil.copytree(good, left)
    assert checkpoint.newest(tmp_path) == (good, [])
    save(tmp_path, 30)
    assert names(tmp_path) == ["step-00000010", "step-00000030"]


KILLED = """
import os, signal, sys
from pathlib import Path
from fasttrain.training import checkpoint
from tests.training.test_checkpoint import save

save(Path(sys.argv[1]), 10)
Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
save(Path(sys.argv[1]), 20)
"""


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, cwd=REPOSITORY).returncode == -signal.SIGKILL
    assert checkpoint.newest(tmp_path) == (tmp_path / "step-00000010", [])
    assert len(names(tmp_path)) == 2


# Which ones stay


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_the_newest_few_are_kept(tmp_path: Path, keep: int) -> None:
    for step in (5, 10, 15, 20):
        save(tmp_path, step, keep)
    expected = [f"step-{step:08d}" for step in (5, 10, 15, 20)]
    assert names(tmp_path) == expected[-keep:]


def test_a_damaged_checkpoint_of_the_same_step_is_written_anew(tmp_path: Path) -> None:
    (save(tmp_path, 10) / "state.pt").unlink()
    folder = save(tmp_path, 10)
    assert checkpoint.newest(tmp_path) == (folder, [])


def test_a_whole_checkpoint_of_the_same_step_is_never_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path, 10, keep=1)
    monkeypatch.setattr(shutil, "rmtree", lambda *_: pytest.fail("it was deleted"))
    assert save(tmp_path, 10, keep=1) == folder
    assert checkpoint.newest(tmp_path) == (folder, [])


def test_the_best_stays_beside_the_newest(tmp_path: Path) -> None:
    for step, score in ((5, 0.2), (10, 0.9), (15, 0.5), (20, 0.9), (25, 0.1), (30, 0.2)):
        save(tmp_path, step, keep=1, score=score)
    assert names(tmp_path) == ["step-00000020", "step-00000030"]
    assert checkpoint.best(tmp_path) == tmp_path / "step-00000020"


def test_what_was_not_scored_is_not_the_best(tmp_path: Path) -> None:
    assert checkpoint.best(tmp_path) is None
    save(tmp_path, 5)
    assert checkpoint.best(tmp_path) is None
    scored = save(tmp_path, 10, score=0.0)
    save(tmp_path, 15)
    assert checkpoint.best(tmp_path) == scored
    truncate(scored / "state.pt")
    assert checkpoint.best(tmp_path) is None


def test_a_copy_shares_nothing_and_keeps_its_layout() -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    state = {"a": [weight, 3], "b": {"c": weight[0], "d": "text"}}
    found = checkpoint.copy(state)
    expected = weight.clone()
    weight.zero_()
    assert torch.equal(found["a"][0], expected)
    assert torch.equal(found["b"]["c"], expected[0])
    assert found["a"][0].is_contiguous(memory_format=torch.channels_last)
    assert (found["a"][1], found["b"]["d"]) == (3, "text")


def test_a_state_that_lacks_something_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    assert checkpoint.load_state(folder, ["step"])["step"] == 1
    message = refusal(lambda: checkpoint.load_state(folder, ["step", "optimizer", "clock"]))
    assert "optimizer, clock is missing" in message


@pytest.mark.parametrize("keep", [1, 2])
def test_a_run_that_came_back_behind_damaged_ones_keeps_what_is_good(
    tmp_path: Path, keep: int
) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, keep=3)
    for step in (20, 30):
        truncate(tmp_path / f"step-{step:08d}" / "state.pt")
    folder = save(tmp_path, 15, keep)  # as it went on from 10, with checkpoints every few minutes
    assert checkpoint.newest(tmp_path) == (folder, [])
    assert names(tmp_path) == ["step-00000010", "step-00000015"][-keep:]


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = save(tmp_path, 10, keep=1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "no space left" in refusal(lambda: save(tmp_path, 20, keep=1))
    assert checkpoint.newest(tmp_path) == (good, [])
    assert names(tmp_path) == ["step-00000010"]


# What does not fit, and what bites


@pytest.mark.parametrize(
    "other",
    [build(widths=(5, 3)), build(widths=(4, 2)), nn.Linear(2, 4), nn.Sequential(build(), build())],
    ids=["wider", "fewer classes", "another", "deeper"],
)
def test_the_weights_of_another_model_are_refused(tmp_path: Path, other: nn.Module) -> None:
    folder = save(tmp_path, 1)
    message = refusal(lambda: checkpoint.load_weights(folder, other))
    assert message.startswith(f"{folder}: the weights do not fit the model: ")


def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    assert "do not fit" in refusal(lambda: checkpoint.load_weights(folder, build()))


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "plant",
    [
        lambda file, bomb: torch.save({"step": 1, "plan": bomb}, file),
        lambda file, bomb: torch.save(bomb, file, _use_new_zipfile_serialization=False),
        lambda file, bomb: file.write_bytes(pickle.dumps(bomb)),
        lambda file, bomb: file.write_bytes(pickle.dumps({"step": bomb}, protocol=2)),
    ],
    ids=["in a state", "in the old form", "a plain pickle", "an old pickle"],
)
def test_a_pickle_bomb_with_a_manifest_that_fits_is_refused_and_not_executed(
    tmp_path: Path, plant: Callable[[Path, Bomb], None]
) -> None:
    folder, proof = save(tmp_path, 1), tmp_path / "it-ran"
    plant(folder / "state.pt", Bomb(proof))
    reseal(folder)
    assert checkpoint.newest(tmp_path) == (folder, [])  # the checksums are of no help here
    message = refusal(lambda: checkpoint.load_state(folder))
    assert message.startswith(f"{folder / 'state.pt'}: not the state of a run, and nothing in it")
    assert not proof.exists()


def test_the_bomb_of_the_test_above_does_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "it-ran")))  # noqa: S301 - that is the point
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense" * 100])
def test_a_state_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = save(tmp_path, 1)
    (folder / "state.pt").write_bytes(content)
    assert "not the state of a run" in refusal(lambda: checkpoint.load_state(folder))
