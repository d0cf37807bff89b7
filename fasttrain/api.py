"""fasttrain from Python: what the commands do, as functions.

    import fasttrain

    config = fasttrain.load_config("configs/baseline.yaml", ["train.epochs=2"])
    run, result = fasttrain.train(config)
    print(result["test_accuracy"], fasttrain.evaluate(run, tta="flip")["accuracy"])
    model = fasttrain.load_model(run)

What a user can mend is a `UserError` of one line; all errors here are `FasttrainError`s.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import torch

from fasttrain.config import Config, Tta, load
from fasttrain.errors import DivergedError, FasttrainError, StoppedError, UserError, nearest
from fasttrain.observe.progress import Screen
from fasttrain.training.run import run as train_run
from fasttrain.use.batches import Batches, Part, Rank
from fasttrain.use.classifier import Classifier
from fasttrain.use.evaluate import evaluate as evaluate_run
from fasttrain.use.model import open_model

__all__ = [
    "Batches",
    "Classifier",
    "Config",
    "DivergedError",
    "FasttrainError",
    "StoppedError",
    "UserError",
    "evaluate",
    "load_config",
    "load_model",
    "loader",
    "train",
]


def load_config(path: str | PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Args:
        path: A YAML file, such as one of `configs/` or a run's `config.yaml`.
        overrides: `key.path=value` settings that change it.

    Raises:
        UserError: the file is missing or no YAML, or a key or value is not valid; the nearest valid
            name is given.
    """
    return load(Path(path), overrides)


def train(
    config: Config,
    run_dir: str | PathLike[str] | None = None,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    quiet: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Train as configured.

    Signals that ask to stop are heard meanwhile, where this is called in the main thread.

    Args:
        config: The run; `Config.model_validate({...})` makes one from a dictionary.
        run_dir: The folder to write; by default a new one in `runs/`.
        resume: Go on with the run there, from its newest whole checkpoint.
        allow_changes: With `resume`: go on under other settings than the run began with, but for
            those that decide its batches.
        quiet: Show nothing; else progress goes to standard error.

    Returns:
        The run's folder, and what its `result.json` holds: among others `test_accuracy` (0 to 1),
        `test_loss` (nats), `train_seconds`, `images_per_second`, `steps`.

    Raises:
        UserError: it cannot be run here.
        DivergedError: the loss or a gradient is not a finite number any more.
        StoppedError: a signal asked for it, behind a checkpoint or ahead of the first step.
    """
    console = Screen(quiet)
    where = None if run_dir is None else Path(run_dir)
    folder, result = train_run(config, where, resume, console, allow_changes)
    return folder.path, result


def evaluate(
    run: str | PathLike[str], *, best: bool = False, tta: Tta | None = None
) -> dict[str, Any]:
    """Score a run on its test set.

    Args:
        run: Its folder.
        best: The checkpoint that validated best, not the newest.
        tta: `none`, `flip` or `shift` (Jordan, arXiv 2404.00498, section 3.5); by default as the
            run itself looks at pictures.

    Returns:
        `accuracy` (0 to 1), its 95 % `interval`, `top5` (with more than five classes), `loss`
        (nats), `count` (pictures), `calibration_error` (0 to 1), `per_class` (accuracies by class
        name), `checkpoint` (path), `passed_over` (newer checkpoints that cannot be used, and why).

    Raises:
        UserError: there is no run, no whole checkpoint in it, or its data set is not at hand.
    """
    _check("tta", tta, (None, *get_args(Tta)))
    return evaluate_run(Path(run), best, tta)


def load_model(
    path: str | PathLike[str], *, best: bool = False, tta: Tta | None = None
) -> Classifier:
    """Load a trained model, with its class names and the size of its pictures.

    It needs no data set, unless the run is so old that it has no `data.json`.

    Args:
        path: A run's folder, or a file that `fasttrain export --format safetensors` wrote.
        best: The checkpoint that validated best, not the newest.
        tta: As in `evaluate`.

    Returns:
        A module on the CPU, in float32 and evaluation mode, that maps (B, H, W, 3) RGB pictures,
        uint8 or floats from 0 to 255, to (B, classes) logits; `classes`, `size` and
        `probabilities` are its own.

    Raises:
        UserError: there is nothing that can be used. Newer checkpoints that are damaged are passed
            over with a warning.
    """
    _check("tta", tta, (None, *get_args(Tta)))
    trained = open_model(Path(path), best, tta)
    for reason in trained.passed_over:
        warnings.warn(f"passed over {reason}", stacklevel=2)
    return trained.model


def loader(
    config: Config,
    part: Part = "train",
    *,
    device: str | torch.device | None = None,
    rank: int = 0,
    world: int = 1,
    compile: bool = False,  # noqa: A002 - the name torch gives it
) -> Batches:
    """The batches that a run of `config` sees, for a training loop of one's own.

    They are a function of the configuration's seed, data and augmentation alone: the same on every
    device, for every loader and, taken together, for any number of ranks.

    Args:
        config: The run.
        part: `train`, `validation` (held out of the training set) or `test`.
        device: Where they are delivered; by default a GPU where there is one.
        rank: Which slice of each batch this process gets.
        world: How many processes share the batches.
        compile: Compile the loader's own work, which takes some seconds and pays in a long run.

    Returns:
        An iterable of `Pictures` (see `Batches`), with a length.

    Raises:
        UserError: the data cannot be found or used, or the batch not be shared by the ranks.
    """
    _check("part", part, get_args(Part))
    if not 0 <= rank < world:
        raise UserError(f"rank={rank}: of world={world} processes; count them from 0")
    return Batches(config, part, Rank(_device(device), rank, world, compile))


def _device(name: str | torch.device | None) -> torch.device:
    """Where pictures are delivered, a GPU where nothing is said and there is one."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind = str(name).partition(":")[0]
    if kind not in ("cuda", "cpu"):
        raise UserError(f"device={name}: pictures are delivered on 'cuda' or 'cpu'")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name}: write 'cuda', 'cuda:1' or 'cpu'") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: torch sees no such NVIDIA GPU here; choose 'cpu'")
    return device


def _check(name: str, value: object, valid: Sequence[str | None]) -> None:
    """Refuse what a type checker would: another word would be taken for one of these."""
    if value not in valid:
        words = [word for word in valid if word is not None]
        hint = nearest(str(value), words)
        raise UserError(f"{name}={value!r}: choose {', '.join(map(repr, words))}{hint}")
