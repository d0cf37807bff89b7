"""A speedrun without a clock of its own is timed and evaluated as the others are."""

from __future__ import annotations

import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import hooked, speedrun

BRIGHT, DARK = 0, 1


class Model(torch.nn.Module):
    """Answers by the level of one pixel; counts how often it is asked."""

    asked = 0

    def eval_forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.asked += 1
        level = images[:, 0, 1, 1]
        return torch.stack([level, 1 - level], 1).half()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with the hooks; `told` is what they were asked to do."""
    made: Any = types.ModuleType("e1")
    made.told, made.model = [], Model()
    made._CACHE = {"train_loader": types.SimpleNamespace(epoch=7)}

    class CifarLoader:
        def __init__(self, path: str, train: bool) -> None:
            assert (path, train) == ("pictures", False)
            self.images = torch.zeros(3, 3, 4, 4)
            self.images[0] = 2  # bright as a whole
            self.images[1, :, 1, 1] = 2  # bright in one look, dark in most
            self.labels = torch.tensor([BRIGHT, BRIGHT, DARK])

        def normalize(self, images: torch.Tensor) -> torch.Tensor:
            return images / 2

    def setup() -> tuple[Model, str]:
        made.told.append(("setup", made._CACHE["train_loader"].epoch))
        return made.model, "extra"

    def train(model: Model, extra: str, ctx: Any) -> None:
        ctx.validate(model, step=3)
        made.told.append(("train", extra))
        made._CACHE["train_loader"].epoch += 9
        model.train()
        time.sleep(0.01)

    made.CifarLoader, made.setup, made.train = CifarLoader, setup, train
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return made


def test_each_run_begins_anew_and_is_looked_at_from_six_sides(script: Any) -> None:
    run = hooked.prepare(script, Path("pictures"))
    assert script.DATA_PATH == "pictures"
    assert script.told == [("setup", 7)]
    for _ in range(2):
        found = run(0)
        # The whole bright picture and the dark one; the other one is bright in too few looks.
        assert found["accuracy"] == pytest.approx(2 / 3)
        assert 0.01 < found["own_seconds"] < found["seconds"]
    assert script.told[1:] == [("setup", 0), ("train", "extra")] * 2
    assert script.model.asked == 12


def test_it_is_a_rival_like_the_others(script: Any) -> None:
    assert hooked.fits(script)
    found = speedrun.train(script, hooked.prepare(script, Path("pictures")), seed=1)
    assert set(found) == {"accuracy", "seconds", "own_seconds", "graphs"}
    assert not hooked.fits(types.ModuleType("another"))
