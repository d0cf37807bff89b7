"""What a run's model sees of its training pictures."""

from __future__ import annotations

from contextlib import suppress

from fasttrain.errors import UserError
from fasttrain.files import write_bytes
from fasttrain.report.reading import Run

_PICTURES, _EPOCHS = 6, 8


def samples(run: Run) -> bytes | None:
    """A PNG of training pictures as the first epochs show them; drawn once, kept in the run.

    It is drawn each time where the run's folder cannot be written, and `None` where there is none
    yet and the data set is not at hand.
    """
    kept = run.folder.samples
    if kept.exists():
        return kept.read_bytes()
    if run.store is None:
        return None
    import torch

    from fasttrain.use.preview import sheet

    # All loaders deliver the same, and this one needs no memory beside a run that may need it.
    data = run.config.data.model_copy(update={"loader": "reference"})
    config = run.config.model_copy(update={"data": data})
    try:
        drawn = sheet(config, run.store, torch.device("cpu"), _PICTURES, _EPOCHS)
    except UserError:  # too few pictures
        return None
    with suppress(UserError):  # no right to write there, or no room
        write_bytes(kept, drawn)
    return drawn
