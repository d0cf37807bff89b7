"""The loss of mixed pictures, and that it stays one graph."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._inductor.utils import run_fw_bw_and_get_code

from fasttrain import models
from fasttrain.config import Config, Resize
from fasttrain.data.mixing import label_weights, mix
from fasttrain.training.resizing import Matrices, Resizer
from fasttrain.training.step import _ON_CPU, _ON_GPU, Objective
from tests.networks import ghost_network

SIZE = (4, 6)
LABELS = torch.tensor([0, 2, 1, 1])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 3))


@pytest.fixture
def images() -> Tensor:
    pictures = torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    return pictures.to(memory_format=torch.channels_last)


def mixing(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(4, 1, generator=generator)
    weights[0] = 1
    boxes = torch.tensor([[1.0, 1, 3, 4], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    return torch.cat([weights, boxes], dim=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_mixed_labels(
    model: nn.Module, images: Tensor, smoothing: float
) -> None:
    loss, totals = Objective(model, smoothing)(images, LABELS, mixing())
    own = label_weights(mixing(), *SIZE)[:, None]
    targets = F.one_hot(LABELS, 3) * own + F.one_hot(LABELS[[1, 0, 3, 2]], 3) * (1 - own)
    logits = model(mix(images, mixing()))
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    right = targets.gather(1, logits.argmax(dim=1, keepdim=True)).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert totals.tolist() == pytest.approx([4 * expected.item(), right.item(), 4], rel=1e-5)


def test_mixing_nothing_is_no_mixing(model: nn.Module, images: Tensor) -> None:
    nothing = torch.tensor([[1.0, 0, 0, 0, 0]]).repeat(4, 1)
    plain, mixed = (
        Objective(model, 0.1)(images, LABELS),
        Objective(model, 0.1)(images, LABELS, nothing),
    )
    assert torch.allclose(plain[0], mixed[0])
    assert torch.allclose(plain[1], mixed[1])


def test_other_weights_and_boxes_need_no_other_graph(model: nn.Module, images: Tensor) -> None:
    torch.compiler.reset()
    compiled = torch.compile(Objective(model, 0.0), dynamic=False, fullgraph=True, backend="eager")
    compiled(images, LABELS, mixing())
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(1, 4):
            found, _ = compiled(images, LABELS, mixing(seed))
            expected, _ = Objective(model, 0.0)(images, LABELS, mixing(seed))
            assert torch.allclose(found, expected)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    "device",
    [
        pytest.param(torch.device("cpu"), marks=pytest.mark.long),
        pytest.param(torch.device("cuda"), marks=pytest.mark.gpu),
    ],
    ids=str,
)
@pytest.mark.parametrize(("bf16", "most"), [(False, 1e-3), (True, 0.15)])
def test_compiled_gradients_are_the_eager_ones_at_every_size(
    device: torch.device, bf16: bool, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the network whose pooling, convolutions and norm have gradients of their own."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # fp32 as a CPU has it
    torch.compiler.reset()
    network = ghost_network(4).to(device)
    resizer = Resizer([Resize(scale=0.75, until="50%")], (8, 8), 1, 2, device)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(8, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 5, (8,), generator=generator).to(device)
    exact, objective = Objective(network, 0.1), Objective(network, 0.1, bf16)
    options = dict(_ON_CPU if device.type == "cpu" else _ON_GPU)
    compiled = torch.compile(objective, dynamic=False, options=options)

    for step in range(2):
        found, expected = (
            gradients(network, way, pictures.to(device), labels, resizer(step))
            for way in (compiled, exact)
        )
        for name, wanted in expected.items():
            # A bias ahead of a norm moves nothing: its gradient is rounding alone.
            error = (found[name] - wanted).norm()
            assert error <= most * (wanted.norm() + 0.01), (step, name)
    torch.compiler.reset()


def gradients(
    network: nn.Module,
    way: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    smaller: Matrices | None,
) -> dict[str, Tensor]:
    network.zero_grad()
    way(pictures, labels, None, smaller)[0].backward()
    named = network.named_parameters()
    return {name: weight.grad.clone() for name, weight in named if weight.grad is not None}


@pytest.mark.usefixtures("compiler")
def test_compiled_code_for_a_cpu_transposes_nothing() -> None:
    """With the compiler's own settings a backward pass did, for a sixth of a step."""
    config = Config.model_validate({"model": {"family": "whitened_cnn", "widths": [16]}})
    network = models.build(config.model, 5).to(memory_format=torch.channels_last)
    pictures = torch.rand(4, 3, 8, 8).to(memory_format=torch.channels_last)
    objective = Objective(network, 0.1, bf16=True)
    step = torch.compile(objective, dynamic=False, options=dict(_ON_CPU))
    with torch._inductor.config.patch(force_disable_caches=True):
        _, (forward, backward) = run_fw_bw_and_get_code(lambda: step(pictures, LABELS)[0])
    assert "cpp_fused" in backward
    assert "transpose_mxn<" not in forward + backward
