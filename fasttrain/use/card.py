"""The model card: what an exported file is, how good, how to load it, what it cannot do.

After Mitchell et al., "Model Cards for Model Reporting", arXiv 1810.03993.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttrain.files import read_json
from fasttrain.observe.environment import installed_version
from fasttrain.observe.folder import RunFolder
from fasttrain.training import checkpoint
from fasttrain.use.formats import OPSET, Format

if TYPE_CHECKING:
    from fasttrain.use.export import Exported
    from fasttrain.use.model import Trained

_VIEWS = {
    "none": "as it is",
    "flip": "and its mirror image; the logits are averaged",
    "shift": "and its mirror image, and both moved by a pixel to two corners; the logits are "
    "averaged, moved ones at half the weight",
}
_LOADING: dict[Format, tuple[str, str]] = {
    "onnx": (
        f"ONNX, opset {OPSET}; the metadata holds the classes, the settings and the data's "
        "measures.",
        """import json, onnxruntime
session = onnxruntime.InferenceSession("{file}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
logits, probabilities = session.run(None, {{"images": images}})""",
    ),
    "torch": (
        "A package of torch.export; its extra files hold the classes, the settings and the data's "
        "measures.",
        """import json, torch
about = {{"classes": ""}}
model = torch.export.load("{file}", extra_files=about).module()
classes = json.loads(about["classes"])
logits, probabilities = model(torch.from_numpy(images))""",
    ),
    "safetensors": (
        "Weights in float32; the metadata holds the classes, the settings and the data's measures.",
        """import fasttrain
model = fasttrain.load_model("{file}")
probabilities = model.probabilities(images)  # columns: model.classes""",
    ),
}


def write(done: Exported, form: Format, run: Path) -> str:
    """The card of an exported file, as Markdown."""
    trained = done.trained
    facts, config = trained.model.facts, trained.config
    height, width = facts.size
    about, loading = _LOADING[form]
    numbers = sum(weight.numel() for weight in trained.model.network.parameters())
    parts = [
        f"# {config.name}: {config.model.family} for {facts.name}",
        f"An image classifier that fasttrain {installed_version('fasttrain')} trained. {about}",
        "## What it is",
        f"- network: `{config.model.family}`, {numbers:,} parameters, in float32\n"
        f"- takes: (B, {height}, {width}, 3) uint8 pictures, RGB, any number B from 1 on; it "
        "normalises them itself\n"
        f"- looks at: each picture {_VIEWS[trained.model.tta]}\n"
        f"- gives: {len(facts.classes)} logits and their softmax for each picture\n"
        f"- classes, in order: {', '.join(facts.classes)}",
        "## Data",
        f"- {facts.name}, digest `{facts.digest}`, {config.data.validation:,} training pictures "
        "held out for validation\n"
        f"- mean {_numbers(facts.mean)}, deviation {_numbers(facts.std)} of 255\n"
        f"- augmentation: {', '.join(entry.name for entry in config.data.augment) or 'none'}",
        "## Accuracy",
        _accuracy(done, run),
        "## How to load it",
        f"`images` is a numpy array, (B, {height}, {width}, 3) uint8.",
        f"```python\n{loading.format(file=done.file.name)}\n```",
        "## Limits",
        f"It knows {len(facts.classes)} classes and names one of them whatever it is shown. Its "
        f"probabilities are not calibrated. It learnt from pictures of {height} x {width} pixels: "
        "larger ones must be made as small, with antialiasing (`fasttrain predict` does). It is as "
        "good as said above on pictures like those it learnt from, and nothing is known of others.",
    ]
    return "\n\n".join(parts) + "\n"


def _accuracy(done: Exported, run: Path) -> str:
    lines = []
    result = _result(run)
    if result is not None:
        lines.append(
            f"- the run's result: {result['test_accuracy']:.2%} of {result['test_count']:,} test "
            f"pictures, with its last weights, in {done.trained.config.train.precision}"
            f"{_unlike(done.trained, result)}"
        )
    found = done.agreement
    right = "" if found.right is None else f", of which it names {found.right:.2%} rightly"
    lines.append(f"- this file was checked on {found.pictures:,} {done.pictures}{right}: {found}")
    return "\n".join(lines)


def _result(run: Path) -> dict[str, Any] | None:
    result = read_json(RunFolder(run).result)
    whole = result is not None and {"test_accuracy", "test_count", "steps"} <= result.keys()
    return result if whole else None


def _unlike(trained: Trained, result: dict[str, Any]) -> str:
    """What of this file is not what the result was measured with."""
    odd = []
    if trained.source.name != checkpoint.place(Path(), result["steps"]).name:
        odd.append(f"of {trained.source.name}")
    if trained.model.tta != trained.config.train.tta:
        odd.append(f"with the views {trained.model.tta!r} and not {trained.config.train.tta!r}")
    return f"; this file is {' and '.join(odd)}" if odd else ""


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
