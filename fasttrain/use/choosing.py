"""Which checkpoint of a run is used, and what it holds, also of a run that goes on meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fasttrain.config import Config
from fasttrain.errors import UserError
from fasttrain.observe.folder import RunFolder
from fasttrain.steps import by_step
from fasttrain.training import checkpoint
from fasttrain.training.checkpoint import Weights

_TRIES = 10


@dataclass(frozen=True)
class Chosen:
    """A checkpoint that was read.

    Attributes:
        folder: Where it lies, or lay.
        passed_over: Newer ones that cannot be used, and why.
        data: The digest of the pictures that it was trained on.
        weights: The model's; their average where the run keeps one.
    """

    folder: Path
    passed_over: tuple[str, ...]
    data: str
    weights: Weights


def choose(folder: RunFolder, config: Config, best: bool) -> Chosen:
    """Read the newest whole checkpoint of a run, or its best one.

    A run that goes on may retire it meanwhile: then there are others, and it is chosen anew.

    Raises:
        UserError: there is none, or its weights cannot be read.
    """
    tries = 0
    while True:
        tries, before = tries + 1, by_step(folder.checkpoints)
        try:
            return _read(folder, config, best)
        except UserError as error:
            gone = isinstance(error, checkpoint.GoneError)  # though its folder may still be there
            if tries == _TRIES or (not gone and by_step(folder.checkpoints) == before):
                raise


def _read(folder: RunFolder, config: Config, best: bool) -> Chosen:
    found, passed_over = _find(folder, best)
    weights = checkpoint.read_weights(found, averaged=config.train.ema is not None)
    try:
        data = str(checkpoint.load_state(found, ("data",))["data"])
    except FileNotFoundError as error:
        raise checkpoint.GoneError(found) from error
    return Chosen(found, tuple(passed_over), data, weights)


def _find(folder: RunFolder, best: bool) -> tuple[Path, list[str]]:
    newest, passed_over = checkpoint.newest(folder.checkpoints)
    if best and newest is not None:
        newest = checkpoint.best(folder.checkpoints)
        if newest is None:
            raise UserError(
                f"{folder.path}: no checkpoint has a validation accuracy; leave out --best"
            )
    if newest is None:
        mend = f"wait for its first, or train on with --run-dir {folder.path} --resume"
        if folder.result.exists():  # it would not go on
            mend = "train it again in another folder"
        elif passed_over:
            mend = "mend that, or delete them and train again"
        none = f"{folder.path}: there is no whole checkpoint"
        raise UserError("; ".join([none, *passed_over, mend]))
    return newest, passed_over
