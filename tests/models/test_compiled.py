"""One graph, whatever the step: whole, compiled once, in bfloat16 and channels last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from fasttrain import models
from fasttrain.config import Model

STAGES = [{"width": 8}, {"width": 8, "pool": "mean"}]

pytestmark = pytest.mark.usefixtures("two_threads")  # generated code shares work, too


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def build(settings: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    model: Model = TypeAdapter(Model).validate_python(settings)
    return models.build(model, 10).to(memory_format=torch.channels_last)


def step_of(network: nn.Module, backend: str) -> Callable[[Tensor], Tensor]:
    """A compiled forward pass to a loss."""

    def loss(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        return logits.float().logsumexp(dim=1).mean()

    return torch.compile(loss, backend=backend, fullgraph=True, dynamic=False)


def pictures() -> Tensor:
    return torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "cnn", "widths": [8, 8], "norm": "batch"},
        {"family": "wide_resnet", "depth": 10, "widen": 1, "dropout": 0.1},
        {"family": "attention_cnn", "stages": STAGES},
        pytest.param(
            {"family": "attention_cnn", "stages": STAGES, "mix": "kernels", "kernels": [1, 3, 3]},
            marks=pytest.mark.long,
        ),
        {"family": "attention_cnn", "stages": STAGES, "norm": "branch", "dropout": 0.2},
        {
            "family": "attention_cnn",
            "stages": STAGES,
            "gate": "sigmoid",
            "squeeze_excite": 4,
            "dropout": 0.2,
            "dropout_of": "channels",
        },
        {
            "family": "attention_cnn",
            "stages": STAGES,
            "residual": True,
            "stochastic_depth": 0.2,
            "head": {"pool": "max", "hidden": [8]},
        },
        {"family": "attention_cnn", "stages": STAGES, "gate": "none", "norm": "none"},
    ],
)
def test_a_changing_temperature_compiles_nothing_anew(settings: dict[str, Any]) -> None:
    network = build(settings)
    # Tracing is what is tested, and generating code takes long. Without the generator torch
    # mistakes the memory layout of batch norm's gradient, which mixed kernels cannot stand.
    step = step_of(network, "inductor" if settings.get("mix") == "kernels" else "aot_eager")
    models.set_temperature(network, 30.0)
    step(pictures()).backward()
    with torch.compiler.set_stance("fail_on_recompile"):
        for temperature in (29.5, 10.0, 1.0, 1.0):
            network.zero_grad()
            models.set_temperature(network, temperature)
            step(pictures()).backward()


def test_compiled_code_reads_the_temperature_of_the_step() -> None:
    """Also with the code generator, and against the uncompiled network."""
    network = build({"family": "attention_cnn", "stages": STAGES, "norm": "none"})
    step = step_of(network, "inductor")
    images = pictures()
    losses = []
    for temperature in (30.0, 0.01):
        models.set_temperature(network, temperature)
        with torch.autocast("cpu", torch.bfloat16):
            plain = network(images).float().logsumexp(dim=1).mean()
        losses.append(step(images).item())
        assert losses[-1] == pytest.approx(plain.item(), rel=0.02)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "whitened_cnn", "widths": [8, 8], "logit_scale": 1.0},
        pytest.param(
            {"family": "whitened_cnn", "widths": [8, 8], "logit_scale": 1.0, "ghost_batch": 16},
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"family": "attention_cnn", "stages": STAGES, "head": {"pool": "max"}},
            marks=pytest.mark.long,
        ),
    ],
)
def test_compiled_gradients_through_the_maximum_are_those_of_plain_code(
    settings: dict[str, Any],
) -> None:
    """In bfloat16 compiled code rounds elsewhere, so the two differ, by a few per cent."""
    network = build(settings)
    images = torch.randn(64, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    step_of(network, "eager")(images).backward()
    wanted = [weight.grad for weight in network.parameters() if weight.grad is not None]
    network.zero_grad()
    step_of(network, "inductor")(images).backward()
    found = [weight.grad for weight in network.parameters() if weight.grad is not None]
    assert len(found) == len(wanted) > 0
    for got, want in zip(found, wanted, strict=True):
        assert torch.linalg.vector_norm(got - want) < 0.3 * torch.linalg.vector_norm(want)


@pytest.mark.parametrize(
    "settings",
    [
        {"mix": "outputs"},
        {"mix": "kernels"},
        {"kernels": [1, 3, 5], "norm": "branch", "squeeze_excite": 2},
        {"residual": True},
    ],
)
def test_blocks_keep_pictures_channels_last(settings: dict[str, Any]) -> None:
    network = build({"family": "attention_cnn", "stages": STAGES, **settings})
    images = pictures()
    for block in network.blocks:
        images = block(images, torch.ones(()))
        assert images.is_contiguous(memory_format=torch.channels_last)
