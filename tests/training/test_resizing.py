"""Small pictures first: when, how, and without code that is generated in the middle of a run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fasttrain import models
from fasttrain.config import Config, Resize, Train
from fasttrain.data.loader import Pictures
from fasttrain.errors import UserError
from fasttrain.runtime import Runtime
from fasttrain.training import optim
from fasttrain.training.resizing import Resizer, matrices, resize
from fasttrain.training.step import TrainingStep

HALF, MOST = Resize(scale=0.5, until="20%"), Resize(scale=0.75, until="50%")


def resizer(*resizes: Resize, size: tuple[int, int] = (32, 32)) -> Resizer:
    return Resizer(resizes, size, steps_per_epoch=10, total=100, device=torch.device("cpu"))


def height(found: Resizer, step: int) -> int:
    by = found(step)
    return len(by.rows) if by else 32


def test_pictures_grow_at_the_configured_steps() -> None:
    heights = [height(resizer(HALF, MOST), step) for step in (0, 19, 20, 49, 50, 99)]
    assert heights == [16, 16, 24, 24, 32, 32]


def test_without_entries_they_are_whole() -> None:
    assert resizer()(0) is None
    assert resizer().after(0) == []


def test_what_comes_later_is_known() -> None:
    found = resizer(HALF, MOST)
    for step, sizes in ((0, [24, 32]), (20, [32]), (70, [])):
        assert [len(by.rows) if by else 32 for by in found.after(step)] == sizes


def test_the_phases_are_the_sizes_of_all_steps() -> None:
    found = resizer(HALF, MOST)
    heights = [height(found, step) for step in range(100)]
    assert [side for (side, _), count in found.phases() for _ in range(count)] == heights
    whole = resizer(Resize(scale=0.5, until="100%"))
    assert whole.phases() == [((16, 16), 100)]


def test_a_size_that_outlasts_the_run_is_its_last() -> None:
    found = resizer(HALF, Resize(scale=0.75, until="20epochs"))  # of ten
    assert found.phases() == [((16, 16), 20), ((24, 24), 80)]
    assert [len(by.rows) for by in found.after(0) if by] == [24]
    assert found.after(20) == []


def test_entries_that_end_too_early_are_refused() -> None:
    with pytest.raises(UserError, match=r"train\.resize: each entry ends after the one before it"):
        resizer(MOST, HALF)


def test_a_size_that_is_too_small_for_the_network_is_refused_by_its_scale() -> None:
    found = resizer(Resize(scale=0.1, until="20%"), MOST)
    found.check(Config.model_validate({"model": {"widths": [4]}}).model)
    with pytest.raises(UserError, match=r"train\.resize: scale=0\.1 is too small: .* of 3 x 3; 1"):
        found.check(Config.model_validate({"model": {"widths": [4, 4]}}).model)


@pytest.mark.parametrize("small", [(24, 24), (20, 30), (1, 1)])
def test_it_is_torchs_antialiased_interpolation(small: tuple[int, int]) -> None:
    images = torch.randn(2, 3, 32, 40)
    expected = F.interpolate(images, small, mode="bilinear", antialias=True)
    found = resize(images, matrices((32, 40), small))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_warm_up_changes_nothing_and_leaves_nothing_to_generate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.compiler.reset()
    traced: list[int] = []

    def backend(
        graph: torch.fx.GraphModule, _inputs: object, **_options: object
    ) -> torch.fx.GraphModule:
        traced.append(1)
        return graph

    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda module, **words: compiled(module, backend=backend, **words)
    )
    settings = Train(device="cpu", precision="fp32", compile=True)
    config = Config.model_validate({"model": {"widths": [4], "norm": "batch"}})
    runtime = Runtime(settings)
    model = models.build(config.model, 10)
    step = TrainingStep(
        model, optim.build(config.optim, model), runtime, settings, 0, None, resizer(HALF, MOST)
    )
    pictures = Pictures(torch.randn(4, 3, 32, 32), torch.arange(4), 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    step.warm_up(0, pictures)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(weight.grad is None for weight in model.parameters())
    step(0, pictures, 1.0)
    warm = len(traced)
    for number in (20, 50, 99):
        step(number, pictures, 1.0)
    assert len(traced) == warm == 3
    runtime.close()
    torch.compiler.reset()
