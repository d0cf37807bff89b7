"""The page: what a run did, or several side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fasttrain.report import details, pictures, settings
from fasttrain.report.curves import curves
from fasttrain.report.reading import Run
from fasttrain.report.stages import stages

_REFRESH = 20  # seconds between two looks of an open page at a run that goes on


def draw(runs: Sequence[Run], samples: bytes | None, live: bool) -> str:
    """Draw one page.

    Args:
        runs: In the order of their telling.
        samples: A PNG of training pictures as the model sees them, of the only run.
        live: Let an open page load itself anew while the run goes on.
    """
    alone = runs[0] if len(runs) == 1 else None
    compared = [] if alone else stages(runs)
    template = Environment(
        loader=PackageLoader("fasttrain.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html")
    return template.render(
        title=alone.config.name if alone else "side by side",
        refresh=_REFRESH if live and alone and alone.is_running else None,
        written=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        curves=curves(runs),
        run=_about(alone, samples) if alone else None,
        stages=compared,
        differences=settings.differences([stage.config for stage in compared]),
    )


def _about(run: Run, samples: bytes | None) -> dict[str, Any]:
    return {
        "path": str(run.folder.path),
        "outcome": run.outcome.get("outcome", "unknown"),
        "message": run.outcome.get("message", ""),
        "tiles": details.tiles(run),
        "budget": details.budget(run),
        "answers": details.answers(run),
        "samples": pictures.png(samples) if samples else None,
        "starts": run.environment.get("starts", []),
        "environment": settings.rows({**run.environment, "starts": None}),
        "config": run.config.to_yaml(),
    }
