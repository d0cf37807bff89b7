"""The forms in which a model leaves the house: to bytes, and back as anyone would load them.

Each takes (B, H, W, 3) uint8 pictures, B being anything from 1 on. ONNX and torch.export give
logits and probabilities, (B, classes) float32 each; safetensors holds the weights alone.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save as serialize
from torch import Tensor, nn

from fasttrain import models
from fasttrain.config import AttentionCnnModel
from fasttrain.errors import UserError
from fasttrain.observe.environment import installed_version
from fasttrain.training.checkpoint import weights_of
from fasttrain.use.classifier import Classifier
from fasttrain.use.model import SUFFIX, Trained, open_model

Format = Literal["onnx", "torch", "safetensors"]
Answer = tuple[Tensor, Tensor]  # logits and probabilities, (B, classes)
Answering = Callable[[Tensor], Answer]

NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}  # packages, by format
OPSET = 20  # of ONNX: what torch's exporter writes without conversion


class Answers(nn.Module):
    """(B, H, W, 3) uint8 pictures to logits and probabilities."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Answer:
        """Return two (B, classes) tensors."""
        logits = self.model(images)
        return logits, torch.softmax(logits, dim=1)


def check_installed(form: Format) -> None:
    """Refuse a form whose packages are not there.

    Raises:
        UserError: it names them, and how to get them.
    """
    missing = [name for name in NEEDED.get(form, ()) if find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format {form} needs {' and '.join(missing)}, which is not installed: "
            f"run pip install {' '.join(missing)}"
        )


def serialize_as(form: Format, trained: Trained) -> bytes:
    """The file's content; packages that it needs are there."""
    match form:
        case "onnx":
            return _to_onnx(trained)
        case "torch":
            return _to_torch(trained)
        case "safetensors":
            return _to_safetensors(trained)


def load_as(form: Format, content: bytes) -> Answering:
    """What answers out of such a file."""
    match form:
        case "onnx":
            return _from_onnx(content)
        case "torch":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded: Answering = torch.export.load(io.BytesIO(content)).module()
            return loaded
        case "safetensors":
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"model{SUFFIX}"
                file.write_bytes(content)
                return Answers(open_model(file).model).eval()


def describe(trained: Trained) -> dict[str, str]:
    """What goes into the file beside the network."""
    config = trained.config
    data = config.data.model_copy(update={"path": None})  # a place on the machine that trained
    train = config.train.model_copy(update={"tta": trained.model.tta})
    public = config.model_copy(update={"data": data, "train": train})
    return {
        "fasttrain": installed_version("fasttrain") or "",
        "classes": json.dumps(trained.model.classes),
        "data": json.dumps(trained.model.facts.write()),
        "config": public.model_dump_json(),
    }


def _plain(trained: Trained) -> Answers:
    """The same network, in memory order and in operations that all exporters know.

    Kernels that are mixed for each picture are the groups of one convolution, as many as there are
    pictures, which is no constant. Mixing the outputs computes the same from the same weights.
    """
    model, settings = deepcopy(trained.model), trained.config.model
    if isinstance(settings, AttentionCnnModel) and settings.mix == "kernels":
        same = models.build(settings.model_copy(update={"mix": "outputs"}), len(model.classes))
        same.load_state_dict(model.network.state_dict())
        model.network = same
    return Answers(model.to(memory_format=torch.contiguous_format)).eval()


def _example(model: Classifier) -> Tensor:
    """Two pictures: the exporters take a batch of one for a constant."""
    return torch.zeros(2, *model.size, 3, dtype=torch.uint8)


def _to_torch(trained: Trained) -> bytes:
    content = io.BytesIO()
    batch = {"images": {0: torch.export.Dim("batch")}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            _plain(trained), (_example(trained.model),), dynamic_shapes=batch
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of the machine that exports
        torch.export.save(program, content, extra_files=describe(trained))
    return content.getvalue()


def _to_onnx(trained: Trained) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _plain(trained),
            (_example(trained.model),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits", "probabilities"],
            dynamic_shapes={"images": {0: "batch"}},
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # paths of the machine that exports
    for key, value in describe(trained).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = proto.SerializeToString()
    return content


def _from_onnx(content: bytes) -> Answering:
    import onnx
    import onnxruntime

    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> Answer:
        logits, probabilities = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return answer


def _to_safetensors(trained: Trained) -> bytes:
    # `format` is what the Hugging Face libraries ask for.
    metadata = {"format": "pt", **describe(trained)}
    return serialize(weights_of(trained.model.network), metadata)
