"""What a model draws at a step is the same in any process that comes to that step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.training.randomness import Randomness

pytestmark = pytest.mark.usefixtures("two_threads")  # generated code shares work, too
CPU = torch.device("cpu")


def mask(step: int, seed: int = 3, rank: int = 0, device: torch.device = CPU) -> Tensor:
    Randomness(seed, rank, device).seed(step)
    return F.dropout(torch.ones(64, device=device), 0.5) != 0


def test_a_step_draws_the_same_whatever_was_drawn_before() -> None:
    first = mask(7)
    torch.rand(1000)
    assert torch.equal(mask(7), first)


def test_steps_ranks_and_seeds_draw_differently() -> None:
    masks = [mask(step, seed, rank) for step in (0, 1, 2) for seed in (0, 1) for rank in (0, 1, 2)]
    assert len({tuple(each.tolist()) for each in masks}) == len(masks)


def test_a_fresh_process_draws_the_same() -> None:
    program = (
        "from tests.training.test_randomness import mask;"
        "print(''.join(str(int(bit)) for bit in mask(123456, seed=2**63 - 1, rank=5)))"
    )
    words = [sys.executable, "-c", program]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert printed == "".join(str(int(bit)) for bit in mask(123456, seed=2**63 - 1, rank=5))


def test_no_two_steps_of_any_rank_share_the_32_bits_that_torch_keeps_on_a_cpu() -> None:
    seen = set()
    for rank in (0, 1, 511, 1023):
        randomness = Randomness(11, rank, CPU)
        for step in range(5000):
            randomness.seed(step)
            seen.add(torch.initial_seed() % 2**32)
    assert len(seen) == 4 * 5000


def test_masks_are_fair() -> None:
    share = torch.stack([mask(step) for step in range(400)]).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.015)  # five standard deviations


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_graph_draws_from_the_step_too() -> None:
    compiled = torch.compile(lambda ones: F.dropout(ones, 0.5), dynamic=False)

    def draw(step: int, rank: int = 0) -> Tensor:
        Randomness(3, rank, CPU).seed(step)
        found: Tensor = compiled(torch.ones(64))
        return found

    first = draw(5)
    torch.rand(10)
    assert torch.equal(draw(5), first)
    assert not torch.equal(draw(6), first)
    assert not torch.equal(draw(5, rank=1), first)


@pytest.mark.gpu
def test_a_gpu_draws_from_the_step_too() -> None:
    device = torch.device("cuda")
    first = mask(5, device=device)
    torch.rand(10, device=device)
    assert torch.equal(mask(5, device=device), first)
    assert not torch.equal(mask(6, device=device), first)
