"""Exporting a trained model to one file, which is held to the model before it appears."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasttrain.config import Tta
from fasttrain.data import sources
from fasttrain.errors import UserError
from fasttrain.files import check_writable, explain_write_errors, write_output
from fasttrain.training.parts import evenly
from fasttrain.use import card, formats
from fasttrain.use.agreement import Agreement, compare
from fasttrain.use.formats import Format
from fasttrain.use.model import SUFFIX, Trained, open_model

_SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": SUFFIX}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        file: The model.
        card: What it is, in Markdown.
        size: Bytes of the file.
        agreement: What the check found.
        pictures: On which pictures, in words.
        trained: What was exported.
    """

    file: Path
    card: Path
    size: int
    agreement: Agreement
    pictures: str
    trained: Trained


def export(
    run: Path,
    form: Format,
    output: Path,
    best: bool = False,
    tta: Tta | None = None,
    pictures: int = 1000,
) -> Exported:
    """Write the model of a run to `output`, and a model card beside it.

    Args:
        run: The run folder.
        form: What kind of file.
        output: The file; it must end as its kind does.
        best: The checkpoint that validated best, not the newest.
        tta: How the file's model looks at a picture; by default as the run itself does.
        pictures: On how many of the test set the file is checked, at most all.

    Raises:
        UserError: the run or the packages for this format are not there, or the file cannot be
            written.
        FasttrainError: the file does not answer as the model; nothing was written.
    """
    if output.suffix != _SUFFIXES[form]:
        raise UserError(
            f"-o {output}: a file of --format {form} ends in {_SUFFIXES[form]}; rename it"
        )
    formats.check_installed(form)
    with explain_write_errors(output):
        if output.is_dir():
            raise UserError(f"-o {output}: is a folder; name a file in it")
    check_writable(output.parent)
    trained = open_model(run, best, tta)
    content = formats.serialize_as(form, trained)
    images, labels, where = _pictures(trained, pictures)
    agreement = compare(trained.model, formats.load_as(form, content), images, labels)
    agreement.require(str(output))
    write_output(output, content)
    beside = output.with_name(f"{output.name}.md")
    done = Exported(output, beside, len(content), agreement, where, trained)
    write_output(beside, card.write(done, form, run).encode())
    return done


def _pictures(
    trained: Trained, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, str]:
    """Test pictures and their labels; random ones where the data set is not at hand."""
    try:
        store = sources.open_here(trained.config.data)
    except UserError:  # of a data set that only the check would need
        store = None
    if store is None or store.digest != trained.model.facts.digest:
        noise = np.random.default_rng(0)
        shape = (count, *trained.model.size, 3)
        images = noise.integers(0, 256, shape, dtype=np.uint8)
        return images, None, "random pictures (the data set is not at hand)"
    chosen = evenly(np.arange(len(store.test.labels)), count)
    where = f"pictures of {store.name}'s test set"
    return store.test.images[chosen], store.test.labels[chosen], where
