"""Every recipe that is shipped: it can run, it says how, nothing about it is odd or recompiled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from fasttrain import models
from fasttrain.config import Config, load
from fasttrain.config.augment import mixes
from fasttrain.data.loader import Pictures
from fasttrain.data.outline import outline
from fasttrain.data.plan import TrainingPlan
from fasttrain.runtime import Runtime
from fasttrain.training import checks, optim, parts, schedule
from fasttrain.training.average import Average
from fasttrain.training.step import TrainingStep

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))
NAMES = [path.relative_to(ROOT / "configs").as_posix() for path in RECIPES]
REPORTED = [name for name in NAMES if name.startswith("as-reported/")]


def steps_per_epoch(config: Config) -> int:
    pictures = parts.count_training(config, outline(config.data).pictures)
    return pictures // config.data.batch_size


def test_the_three_stages_and_what_was_reported_of_them_are_there() -> None:
    stages = {"baseline.yaml", "intermediate.yaml", "advanced.yaml"}
    assert stages <= set(NAMES)
    assert {name.removeprefix("as-reported/") for name in REPORTED} == stages


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_opens_with_its_command_and_fits_on_a_page(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == f"# fasttrain train {path.relative_to(ROOT).as_posix()}"
    assert lines[1] == "#"
    assert len(lines) <= 60


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_can_run_and_nothing_about_it_is_odd(path: Path) -> None:
    config = load(path)
    parts.check(config)
    steps = steps_per_epoch(config)
    assert checks.oddities(config, steps) == []
    assert schedule.check(config.schedule, config.train.epochs, steps) == []
    models.check(config.model, outline(config.data).size)


def test_the_demo_is_quick_on_a_cpu_without_bfloat16() -> None:
    """Imitated, it would take seven times as long."""
    config = load(ROOT / "configs" / "demo.yaml")
    assert checks.of_precision(config.train.precision, imitated=True) == []


@pytest.mark.parametrize("stage", ["intermediate.yaml", "advanced.yaml"])
def test_a_stage_keeps_its_shape_when_it_is_shortened(stage: str) -> None:
    """Whoever tries it for a few epochs changes one number."""
    config = load(ROOT / "configs" / stage, ["train.epochs=3"])
    steps = steps_per_epoch(config)
    assert checks.oddities(config, steps) == []
    assert schedule.check(config.schedule, 3, steps) == []
    rates = schedule.Rates(config.schedule, steps, 3 * steps)
    assert rates(3 * steps - 1) < 0.1


@pytest.fixture
def _tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Traces and guards as always, but runs what was traced eagerly: no code is generated."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.compiler.reset()


@pytest.mark.usefixtures("_tracing")
@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_nothing_is_compiled_again_after_the_first_step(path: Path) -> None:
    """Rates, the gates' temperature and what is drawn differ from step to step."""
    config = load(path, ["train.compile=true", "train.device=cpu", "train.accumulate=1"])
    runtime = Runtime(config.train)
    size = outline(config.data).size
    model = models.build(config.model, 10).to(memory_format=torch.channels_last)
    average = Average(model, config.train.ema) if config.train.ema else None
    step = TrainingStep(model, optim.build(config.optim, model), runtime, config.train, 0, average)
    steps = steps_per_epoch(config)
    total = steps * config.train.epochs
    rates = schedule.Rates(config.schedule, steps, total)
    batch = batch_of(config, size)

    def train(at: int) -> None:
        models.set_temperature(model, schedule.gate_temperature(config.model, at, steps, total))
        step(at, batch, rates(at))

    model.train()
    train(0)
    with torch.compiler.set_stance("fail_on_recompile"):
        for at in (1, steps, total // 2, total - 1):
            train(at)


def batch_of(config: Config, size: tuple[int, int]) -> Pictures:
    """Two pictures of noise; mixed, where the recipe does that."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *size, generator=generator)
    labels = torch.tensor([3, 7])
    mixing = None
    if mixes(config.data.augment):
        plan = TrainingPlan(torch.arange(2).numpy(), 2, 0, config.data.augment, size)
        mixing = torch.from_numpy(plan.batch(0).draws["mixing"])
    return Pictures(images.to(memory_format=torch.channels_last), labels, 2, mixing)
