"""Muon makes momenta orthogonal, in batches, and is torch's own on matrices."""

from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from fasttrain.training import muon
from fasttrain.training.muon import Muon, Scale, as_matrix, orthogonalise

SHAPES = [(64, 576), (64, 64), (96, 32), (10, 64), (1, 9), (32, 1)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_1(shape: tuple[int, int]) -> None:
    values = torch.linalg.svdvals(orthogonalise(noise(3, *shape)).float())
    assert values.max() < 1.3
    # A square matrix of noise has singular values next to 0, which five iterations do not lift.
    assert values.median() > 0.65
    if shape[0] != shape[1]:
        assert values.min() > 0.5


@pytest.mark.parametrize("size", [1e-12, 1e-3, 1.0, 1e6])
def test_the_size_of_a_matrix_does_not_matter(size: float) -> None:
    matrices = noise(2, 16, 40)
    found = orthogonalise(matrices * size).float()
    if size > 1e-9:
        assert torch.allclose(found, orthogonalise(matrices).float(), atol=0.02)
    assert found.isfinite().all()


def test_a_matrix_of_zeros_stays_one() -> None:
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 6)).float(), torch.zeros(1, 4, 6))


def test_singular_vectors_stay() -> None:
    left, _ = torch.linalg.qr(noise(24, 24, seed=1))
    right, _ = torch.linalg.qr(noise(48, 24, seed=2))
    matrix = left @ torch.diag(torch.linspace(0.2, 2.0, 24)) @ right.T
    turned = left.T @ orthogonalise(matrix[None])[0].float() @ right
    off = turned - torch.diag(turned.diagonal())
    assert turned.diagonal().min() > 0.6
    assert off.abs().max() < 0.03


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_is_what_its_matrices_are_one_by_one(shape: tuple[int, int]) -> None:
    matrices = noise(5, *shape)
    single = torch.cat([orthogonalise(matrix[None]) for matrix in matrices])
    assert torch.allclose(orthogonalise(matrices).float(), single.float(), atol=0.02)


def test_more_iterations_than_one_are_needed() -> None:
    values = torch.linalg.svdvals(orthogonalise(noise(1, 64, 576), iterations=1).float())
    assert values.max() < 0.9


# As an optimiser


def steps(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], count: int) -> None:
    for step in range(count):
        for at, weight in enumerate(weights):
            gradient = noise(*weight.shape, seed=100 * step + at)
            weight.grad = torch.empty_like(weight).copy_(gradient)
        optimizer.step()


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("scale", "name"), [("shape", "original"), ("rms", "match_rms_adamw")])
def test_twenty_steps_are_those_of_torch_on_matrices(
    nesterov: bool, scale: Scale, name: str
) -> None:
    shapes = [(24, 96), (24, 96), (48, 16), (24, 24)]
    ours, theirs = (
        [nn.Parameter(noise(*shape, seed=at)) for at, shape in enumerate(shapes)] for _ in range(2)
    )
    steps(Muon(ours, 0.02, 0.9, nesterov, weight_decay=0.1, scale=scale), ours, 20)
    reference = torch.optim.Muon(
        theirs, 0.02, weight_decay=0.1, momentum=0.9, nesterov=nesterov, adjust_lr_fn=name
    )
    steps(reference, theirs, 20)
    for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        moved = (other - noise(*shapes[at], seed=at)).norm()
        assert (one - other).norm() / moved < 0.02  # what bfloat16 leaves of twenty updates


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_kernel_moves_like_its_matrix(layout: torch.memory_format) -> None:
    kernel = nn.Parameter(noise(12, 8, 3, 3).to(memory_format=layout))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    optimizer = Muon([kernel], 0.1, 0.9)
    steps(optimizer, [kernel], 1)
    matrix.grad = noise(12, 8, 3, 3).flatten(1)
    Muon([matrix], 0.1, 0.9).step()
    assert torch.allclose(kernel.detach().flatten(1), matrix.detach(), atol=2e-3)
    assert kernel.is_contiguous(memory_format=layout)
    assert optimizer.state[kernel]["momentum"].stride() == kernel.stride()


def test_a_kernel_in_channels_last_memory_is_a_matrix_without_a_copy() -> None:
    kernel = noise(12, 8, 3, 3).to(memory_format=torch.channels_last)
    assert as_matrix(kernel).data_ptr() == kernel.data_ptr()
    assert as_matrix(kernel).shape == (12, 72)


def test_an_update_has_the_size_of_the_rate() -> None:
    for scale, factor in (("none", 1.0), ("shape", 2.0), ("rms", 0.2 * math.sqrt(64))):
        weight = nn.Parameter(torch.zeros(64, 16))
        steps(Muon([weight], 0.1, 0.9, scale=scale), [weight], 1)
        largest = torch.linalg.matrix_norm(weight.detach(), 2).item()
        assert 0.065 * factor < largest < 0.13 * factor


def test_a_fixed_norm_is_restored_before_every_update() -> None:
    kernels = [nn.Parameter(noise(16, 8, 3, 3, seed=at) * 10**at) for at in range(3)]
    steps(Muon(kernels, 1e-9, 0.9, fix_norm=True), kernels, 1)
    for kernel in kernels:
        assert kernel.norm().item() == pytest.approx(4.0, rel=1e-5)


def test_what_has_no_gradient_stays() -> None:
    used, unused = nn.Parameter(noise(4, 6)), nn.Parameter(noise(4, 6))
    optimizer = Muon([used, unused], 0.1, 0.9, weight_decay=0.5)
    used.grad = torch.ones_like(used)
    optimizer.step()
    assert torch.equal(unused, noise(4, 6))
    assert not torch.equal(used, noise(4, 6))
    used.grad = None
    optimizer.step()  # nothing at all to do


def test_matrices_of_several_shapes_are_orthogonalised_together_as_alone() -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in ((4, 9), (16, 5), (16, 40), (16, 40))]

    together = muon._orthogonalise_together(matrices, 3)

    for one, matrix in zip(together, matrices, strict=True):
        (alone,) = muon._orthogonalise_together([matrix], 3)
        assert one.shape == matrix.shape
        torch.testing.assert_close(one, alone, atol=0.02, rtol=0)  # bfloat16 carries 8 bits
        assert alone.abs().max() > 0.2


class OnGpu:
    """As much of a matrix on a GPU as is asked for."""

    device = torch.device("cuda")

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def numel(self) -> int:
        return self.shape[0] * self.shape[1]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (((4, 9), (4, 9), (4, 8)), [[0, 1, 2]]),
        (((4, 9), (9, 4), (2, 8)), [[0, 1, 2]]),  # laid on its side it fits
        (((40, 90), (4, 9), (4, 9)), [[0], [1, 2]]),  # 3 x 3600 numbers for 3672
    ],
)
def test_only_a_gpu_takes_several_shapes_at_once(
    shapes: tuple[tuple[int, int], ...], expected: list[list[int]]
) -> None:
    on_gpu = cast(list[Tensor], [OnGpu(shape) for shape in shapes])
    here = [torch.empty(shape) for shape in shapes]

    assert muon._stacks(on_gpu) == expected
    assert all(len({shapes[at] for at in places}) == 1 for places in muon._stacks(here))
