"""Loading a trained model: from a run, or from a file that was exported from one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from fasttrain import models
from fasttrain.config import Config, Tta
from fasttrain.data import sources
from fasttrain.data.facts import Facts
from fasttrain.errors import UserError
from fasttrain.observe.folder import RunFolder, open_run
from fasttrain.training import checkpoint
from fasttrain.use.choosing import choose
from fasttrain.use.classifier import Classifier

SUFFIX = ".safetensors"
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Trained:
    """A model and where it comes from.

    Attributes:
        model: On the CPU, in float32 and evaluation mode.
        config: The run's.
        source: The checkpoint, or the exported file.
        passed_over: Newer checkpoints that cannot be used, and why.
    """

    model: Classifier
    config: Config
    source: Path
    passed_over: tuple[str, ...] = ()


def open_model(path: Path, best: bool = False, tta: Tta | None = None) -> Trained:
    """Load the model of a run, or one that `fasttrain export` wrote as safetensors.

    Args:
        path: The run folder or the file.
        best: The checkpoint that validated best, not the newest.
        tta: How the model looks at a picture; by default as the run itself does.

    Raises:
        UserError: there is nothing that can be used; the message says what and why.
    """
    if path.suffix == SUFFIX:
        if best:
            raise UserError(f"{path}: an exported file holds one model; leave out --best")
        return _open_file(path, tta)
    folder, config = open_run(path)
    chosen = choose(folder, config, best)
    facts = _find_facts(folder, config, chosen.data)
    network = models.build(config.model, len(facts.classes))
    checkpoint.put_weights(chosen.folder, network, chosen.weights)
    model = _classifier(network, facts, tta or config.train.tta, config)
    return Trained(model, config, chosen.folder, chosen.passed_over)


def _classifier(network: nn.Module, facts: Facts, tta: Tta, config: Config) -> Classifier:
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    return Classifier(network.to(memory_format=layout), facts, tta)


def _find_facts(folder: RunFolder, config: Config, digest: str) -> Facts:
    """What the run keeps of its data set; of an old run, what the data set itself says."""
    if folder.data.exists():
        try:
            facts = Facts.read(json.loads(folder.data.read_text()))
        except _READ_ERRORS as error:
            raise UserError(
                f"{folder.data}: cannot be read ({error!r}); restore it, or delete it where the "
                "data set is at hand"
            ) from error
    else:
        facts = _ask_data(folder, config)
    if facts.digest != digest:
        raise UserError(
            f"{folder.path} was trained on other pictures than its "
            f"{'data.json says' if folder.data.exists() else 'data set holds now'}; "
            "set FASTTRAIN_DATA to where they came from"
        )
    return facts


def _ask_data(folder: RunFolder, config: Config) -> Facts:
    why = "set FASTTRAIN_DATA to where it lies"
    try:
        if store := sources.open_here(config.data):
            return Facts.of(store)
    except UserError as error:
        why = str(error)
    raise UserError(
        f"{folder.path}: this run does not keep its class names (it is older than data.json), and "
        f"its data set is not at hand: {why}"
    )


def _open_file(path: Path, tta: Tta | None) -> Trained:
    """A model with its own description in the file's metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = Config.model_validate_json(about["config"])
        facts = Facts.read(json.loads(about["data"]))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except (*_READ_ERRORS, SafetensorError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: not a model that fasttrain export wrote ({reason}); export it again"
        ) from error
    network = models.build(config.model, len(facts.classes))
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: the weights do not fit the model; export it again") from error
    return Trained(_classifier(network, facts, tta or config.train.tta, config), config, path)
