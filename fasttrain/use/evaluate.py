"""Scoring a finished run on the test set."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fasttrain import models
from fasttrain.answers import interval
from fasttrain.config import LoaderName, Train, Tta
from fasttrain.data import sources
from fasttrain.errors import UserError
from fasttrain.observe.folder import open_run
from fasttrain.training import checkpoint, parts
from fasttrain.training.evaluate import Evaluator
from fasttrain.training.result import score
from fasttrain.training.surroundings import compiled_code, enough_memory, opened_runtime
from fasttrain.use.choosing import choose


def evaluate(
    run: Path, best: bool = False, tta: Tta | None = None, loader: LoaderName | None = None
) -> dict[str, Any]:
    """Score the newest whole checkpoint of a run, or the best one, on the test set.

    `tta` says how each picture is looked at, `loader` who delivers them; by default as in the run
    itself. Where the run averages its weights, the average is scored, as the run itself does.

    Returns `checkpoint`, `passed_over` (newer ones that cannot be used, and why), `accuracy`
    (0 to 1), its 95 % `interval`, `top5` (with more than five classes), `loss` (nats), `count`,
    `calibration_error` (0 to 1; see `Answers`), and `per_class`: accuracies by class name.

    Raises:
        UserError: there is no run, no whole checkpoint in it, or the data set is another one.
    """
    folder, config = open_run(run)
    chosen = choose(folder, config, best)
    with ExitStack() as held:
        runtime = held.enter_context(opened_runtime(_anywhere(config.train)))
        held.enter_context(enough_memory("end what else uses it, or set CUDA_VISIBLE_DEVICES="))
        # Not the run's own folder of compiled code: it may still be training.
        aside = Path(held.enter_context(TemporaryDirectory(prefix="fasttrain-")))
        code = held.enter_context(compiled_code(config, runtime, aside, lambda _: None))
        store = sources.open_dataset(config.data)
        if chosen.data != store.digest:
            raise UserError(
                f"{run} was trained on other pictures than are found now in {store.folder}; "
                "set FASTTRAIN_DATA to where they came from"
            )
        model = models.build(config.model, len(store.classes))
        checkpoint.put_weights(chosen.folder, model, chosen.weights)
        model = parts.place_model(config, model, runtime)
        data = config.data.model_copy(update={"loader": loader or config.data.loader})
        config = config.model_copy(update={"data": data})
        evaluation = parts.evaluation_pass(config, store, store.test, runtime)
        held.callback(evaluation.loader.close)
        answers = Evaluator(model, runtime, tta or config.train.tta)(evaluation)
        code.seal()
    found = score(answers, len(store.classes))
    return {
        "checkpoint": str(chosen.folder),
        "passed_over": list(chosen.passed_over),
        **found,
        "interval": interval(answers.accuracy, answers.count),
        "calibration_error": answers.calibration_error(),
        "per_class": dict(zip(store.classes, found["per_class"], strict=True)),
    }


def _anywhere(train: Train) -> Train:
    """A run on a GPU can be scored without one."""
    device = "auto" if train.device == "cuda" else train.device
    return train.model_copy(update={"device": device})
