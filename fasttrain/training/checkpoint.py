"""Checkpoints: whole or absent, checksummed, and readable without running what they hold.

checkpoints/step-00001234/
  model.safetensors   the weights, under the model's own names
  ema.safetensors     their moving average, where the run keeps one
  state.pt            optimiser, counters and fingerprints; loads with weights_only=True
  manifest.json       a SHA-256 for each file
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from pickle import UnpicklingError  # only its name: nothing is unpickled here
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fasttrain.errors import UserError
from fasttrain.files import atomic_folder

_FORMAT = 1
_WEIGHTS, _AVERAGED = "model.safetensors", "ema.safetensors"


def save(
    root: Path,
    step: int,
    model: nn.Module,
    state: dict[str, Any],
    keep: int,
    averaged: nn.Module | None = None,
) -> Path:
    """Write a checkpoint, then delete all but the newest `keep`.

    Later ones are deleted too: a run that came back behind them has found them damaged.

    Args:
        root: The folder of checkpoints.
        step: Training steps done.
        model: Its weights and buffers are written.
        averaged: The averaged model, likewise.
        state: Tensors, numbers, strings, and lists and dictionaries of them.
        keep: At least 1.

    Raises:
        UserError: there is no room, or no right to write there.
    """
    target = root / f"step-{step:08d}"
    for part in root.glob(".step-*.part"):  # what a killed process left
        shutil.rmtree(part)
    if target.exists():  # a resumed run that came back to the same step
        shutil.rmtree(target)
    with atomic_folder(target) as aside:
        _save_weights(model, aside / _WEIGHTS)
        if averaged is not None:
            _save_weights(averaged, aside / _AVERAGED)
        torch.save(state, aside / "state.pt")
        digests = {file.name: _sha256(file) for file in sorted(aside.iterdir())}
        manifest = {"format": _FORMAT, "step": step, "sha256": digests}
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=2))
    folders = _folders(root)
    end = folders.index(target) + 1
    for old in folders[: max(end - keep, 0)] + folders[end:]:
        shutil.rmtree(old)
    return target


def newest(root: Path) -> tuple[Path | None, list[str]]:
    """Find the newest whole checkpoint; also say which were passed over, and why."""
    passed_over: list[str] = []
    for folder in reversed(_folders(root)):
        flaw = _flaw(folder)
        if flaw is None:
            return folder, passed_over
        passed_over.append(f"{folder}: {flaw}")
    return None, passed_over


def _save_weights(model: nn.Module, file: Path) -> None:
    weights = model.state_dict()
    save_file({name: value.cpu().contiguous() for name, value in weights.items()}, file)


def load_weights(folder: Path, model: nn.Module, averaged: bool = False) -> None:
    """Read the weights of a checkpoint, or their average, into `model`.

    Raises:
        UserError: the weights do not fit the model, or no average was kept.
    """
    file = folder / (_AVERAGED if averaged else _WEIGHTS)
    if not file.exists():
        raise UserError(f"{folder}: there is no {file.name}; the run did not average its weights")
    try:
        model.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{folder}: the weights do not fit the model: {reason}") from error


def load_state(folder: Path) -> dict[str, Any]:
    """Read everything but the weights; nothing in the file is executed.

    Raises:
        UserError: the file holds something else than plain data.
    """
    file = folder / "state.pt"
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{file}: not the state of a run, and nothing in it was executed; delete the folder "
            "to go on from an earlier checkpoint"
        ) from error
    return state


def _folders(root: Path) -> list[Path]:
    """Complete folders, oldest first; one that is still being written has another name."""
    return sorted(root.glob("step-*")) if root.is_dir() else []


def _flaw(folder: Path) -> str | None:
    """Say why a checkpoint cannot be used; `None` when every checksum holds."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["format"] != _FORMAT:
            return f"it has format {manifest['format']}, not {_FORMAT}"
        for name, digest in manifest["sha256"].items():
            if _sha256(folder / name) != digest:
                return f"the checksum of {name} does not hold"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"manifest.json cannot be read ({error})"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
