"""Checkpoints: whole or absent, checksummed, and readable without running what they hold.

checkpoints/step-00001234/
  model.safetensors   the weights, under the model's own names
  ema.safetensors     their moving average, where the run keeps one
  state.pt            optimiser, counters and fingerprints; loads with weights_only=True
  manifest.json       a SHA-256 for each file, and the validation accuracy
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError  # only its name: nothing is unpickled here
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn

from fasttrain.errors import UserError
from fasttrain.files import atomic_folder, read_json, sha256, write_text
from fasttrain.steps import by_step

_FORMAT = 1
_WEIGHTS, _AVERAGED = "model.safetensors", "ema.safetensors"
_MANIFEST = "manifest.json"

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one step, on the host, shared with nothing that still changes.

    Attributes:
        step: Training steps done.
        weights: Parameters and buffers of the model, by name.
        averaged: Likewise of the averaged model, where there is one.
        state: Tensors, numbers, strings, and lists and dictionaries of them.
        score: Validation accuracy at this step, 0 to 1, where it was taken.
    """

    step: int
    weights: Weights
    averaged: Weights | None
    state: dict[str, Any]
    score: float | None = None


def copy(value: Any) -> Any:
    """Copy tensors to the host, with their memory layout, and what holds them."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copy(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [copy(each) for each in value]
    return value


def place(root: Path, step: int) -> Path:
    """The folder of the checkpoint after so many steps."""
    return root / f"step-{step:08d}"


def weights_of(model: nn.Module) -> Weights:
    """Copy a model's parameters and buffers to the host, in plain memory order."""
    return {name: copy(value).contiguous() for name, value in model.state_dict().items()}


def save(root: Path, snapshot: Snapshot, keep: int, best: bool = False) -> Path:
    """Write a checkpoint, then delete all but the newest `keep` and, with `best`, the best one.

    Later ones are deleted too: a run that came back behind them has found them damaged.

    Args:
        root: The folder of checkpoints.
        snapshot: What is written.
        keep: At least 1.
        best: Whether the one with the highest score stays, too.

    Raises:
        UserError: there is no room, or no right to write there.
    """
    target = place(root, snapshot.step)
    for part in root.glob(".step-*.part"):  # what a killed process left
        shutil.rmtree(part, ignore_errors=True)
    if target.exists():  # a resumed run came back to the same step
        if _flaw(target) is None:
            return target  # and has nothing to add; there is no moment without a checkpoint
        shutil.rmtree(target)
    with atomic_folder(target) as aside:
        # By way of memory: the libraries' own writers hide that a disk is full.
        (aside / _WEIGHTS).write_bytes(serialize(snapshot.weights))
        if snapshot.averaged is not None:
            (aside / _AVERAGED).write_bytes(serialize(snapshot.averaged))
        (aside / "state.pt").write_bytes(_serialize_state(snapshot.state))
        digests = {file.name: sha256(file) for file in sorted(aside.iterdir())}
        manifest = {
            "format": _FORMAT,
            "step": snapshot.step,
            "score": snapshot.score,
            "sha256": digests,
        }
        (aside / _MANIFEST).write_text(json.dumps(manifest, indent=2))
    _retire(root, target, keep, best)
    return target


def _serialize_state(state: dict[str, Any]) -> bytes:
    content = BytesIO()
    torch.save(state, content)
    return content.getvalue()


def _retire(root: Path, target: Path, keep: int, best: bool) -> None:
    """Delete what need not stay beside `target`, which was just written."""
    folders = _folders(root)
    end = folders.index(target) + 1
    stay = set(folders[max(end - keep, 0) : end])
    if best and (highest := _best_of(folders[:end])):
        stay.add(highest)
    for old in folders:
        if old not in stay:
            # One that somebody reads may resist; it is tried again the next time.
            shutil.rmtree(old, ignore_errors=True)


def best(root: Path) -> Path | None:
    """The whole checkpoint with the highest validation accuracy; of equals the newest."""
    return _best_of([folder for folder in _folders(root) if _flaw(folder) is None])


def _best_of(folders: list[Path]) -> Path | None:
    scored = [(score, folder) for folder in folders if (score := _score(folder)) is not None]
    return max(scored)[1] if scored else None


def _score(folder: Path) -> float | None:
    """The validation accuracy that a checkpoint was written with."""
    score = (read_json(folder / _MANIFEST) or {}).get("score")
    return float(score) if isinstance(score, int | float) else None


def rate(folder: Path, score: float) -> None:
    """Note a validation accuracy that was taken only after the checkpoint was written."""
    manifest = json.loads((folder / _MANIFEST).read_text())
    write_text(folder / _MANIFEST, json.dumps({**manifest, "score": score}, indent=2))


def newest(root: Path) -> tuple[Path | None, list[str]]:
    """Find the newest whole checkpoint; also say which were passed over, and why."""
    passed_over: list[str] = []
    for folder in reversed(_folders(root)):
        flaw = _flaw(folder)
        if flaw is None:
            return folder, passed_over
        passed_over.append(f"{folder}: {flaw}")
    return None, passed_over


def load_weights(folder: Path, model: nn.Module, averaged: bool = False) -> None:
    """Read the weights of a checkpoint, or their average, into `model`.

    Raises:
        UserError: as `read_weights` and `put_weights`.
    """
    put_weights(folder, model, read_weights(folder, averaged))


def read_weights(folder: Path, averaged: bool = False) -> Weights:
    """Read the weights of a checkpoint, or their average.

    Raises:
        UserError: they are none, no average was kept, or the checkpoint has gone.
    """
    file = folder / (_AVERAGED if averaged else _WEIGHTS)
    try:
        return load_file(file)
    except FileNotFoundError as error:
        if file.name in _kept(folder):
            raise GoneError(folder) from error
        raise UserError(
            f"{folder}: there is no {file.name}; the run did not average its weights"
        ) from error
    except SafetensorError as error:
        raise _misfit(folder, error) from error


def put_weights(folder: Path, model: nn.Module, weights: Weights) -> None:
    """Put what was read from a checkpoint into `model`.

    Raises:
        UserError: the weights do not fit the model.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise _misfit(folder, error) from error


def _misfit(folder: Path, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[-1].strip()
    return UserError(f"{folder}: the weights do not fit the model: {reason}")


class GoneError(UserError):
    """A checkpoint was there, and is not, or not all of it, any more."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder}: has gone since it was chosen; a run deletes old checkpoints as it goes "
            "on, so run the command again"
        )


def _kept(folder: Path) -> Sequence[str]:
    """The files that a checkpoint was written with; of one that has gone, any may have been."""
    kept = (read_json(folder / _MANIFEST) or {}).get("sha256")
    return tuple(kept) if isinstance(kept, dict) else (_WEIGHTS, _AVERAGED)


def load_state(folder: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """Read everything but the weights; nothing in the file is executed.

    Args:
        folder: A whole checkpoint.
        needed: What must be there.

    Raises:
        UserError: the file holds something else than plain data, or something is missing.
    """
    file = folder / "state.pt"
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{file}: not the state of a run, and nothing in it was executed; delete the folder "
            "to go on from an earlier checkpoint"
        ) from error
    missing = [key for key in needed if not isinstance(state, dict) or key not in state]
    if missing:
        raise UserError(
            f"{file}: {', '.join(missing)} is missing, and a run goes on with all of its state or "
            "not at all; delete the folder to go on from an earlier checkpoint"
        )
    return state


def _folders(root: Path) -> list[Path]:
    """Complete folders, oldest first."""
    return [folder for _, folder in by_step(root)]


def _flaw(folder: Path) -> str | None:
    """Say why a checkpoint cannot be used; `None` when every checksum holds."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        if manifest["format"] != _FORMAT:
            return f"it has format {manifest['format']}, not {_FORMAT}"
        for name, digest in manifest["sha256"].items():
            if sha256(folder / name) != digest:
                return f"the checksum of {name} does not hold"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"manifest.json cannot be read ({error})"
    return None
