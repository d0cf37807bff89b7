"""Scoring a finished run on the test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fasttrain.config import Tta
from fasttrain.data import sources
from fasttrain.errors import UserError
from fasttrain.observe.folder import open_run
from fasttrain.runtime import Runtime
from fasttrain.training import checkpoint, parts
from fasttrain.training.evaluate import Evaluator


def evaluate(run: Path, best: bool = False, tta: Tta | None = None) -> dict[str, Any]:
    """Score the newest whole checkpoint of a run, or the best one, on the test set.

    `tta` says how each picture is looked at; by default as the run itself does it. Where the run
    averages its weights, the average is scored, as the run itself does.

    Returns `checkpoint`, `passed_over` (newer ones that cannot be used, and why), `accuracy`
    (0 to 1), `loss` (nats) and `count`.

    Raises:
        UserError: there is no run, no whole checkpoint in it, or the data set is another one.
    """
    folder, config = open_run(run)
    newest, passed_over = checkpoint.newest(folder.checkpoints)
    if best and newest is not None:
        newest = checkpoint.best(folder.checkpoints)
        if newest is None:
            raise UserError(f"{run}: no checkpoint has a validation accuracy; leave out --best")
    if newest is None:
        raise UserError("; ".join([f"{run}: there is no whole checkpoint", *passed_over]))
    runtime = Runtime(config.train)
    try:
        store = sources.open_dataset(config.data)
        if checkpoint.load_state(newest)["data"] != store.digest:
            raise UserError(
                f"{run} was trained on other pictures than are found now in {store.folder}; "
                "set FASTTRAIN_DATA to where they came from"
            )
        model = parts.build_model(config, store, runtime)
        checkpoint.load_weights(newest, model, averaged=config.train.ema is not None)
        evaluation = parts.evaluation_pass(config, store, store.test, runtime)
        score = Evaluator(model, runtime, tta or config.train.tta)(evaluation)
        evaluation.loader.close()
    finally:
        runtime.close()
    return {
        "checkpoint": str(newest),
        "passed_over": passed_over,
        "accuracy": score.accuracy,
        "loss": score.loss,
        "count": score.count,
    }
