"""Muon: momentum whose matrices are made orthogonal before they become an update.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. torch's own
`torch.optim.Muon` takes 2-D parameters one by one; this one takes convolution kernels too, and
orthogonalises all matrices of one shape in one batch. `tests/training/test_muon.py` holds it to
torch's.

Shapes: a matrix has m rows, one for each output channel, and n columns; N are stacked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

# The quintic of Jordan et al., section "Tuning the coefficients": steep at 0, so that small
# singular values grow fast, and flat enough around 1 to keep them between about 0.7 and 1.2.
_A, _B, _C = 3.4445, -4.7750, 2.0315

_PADDING = 2.5  # how many times as many numbers a GPU may take for fewer kernels

Scale = Literal["shape", "rms", "none"]


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; weight decay is decoupled from the gradient.

    Args:
        params: Parameters of two or more dimensions.
        lr: Learning rate.
        momentum: Share of the old momentum, from 0 to less than 1.
        nesterov: Whether the update looks one step ahead.
        weight_decay: Share of a weight, times the rate, that is lost at every step.
        iterations: Newton-Schulz iterations.
        scale: How the rate depends on a matrix's shape; see `config.Muon`.
        fix_norm: Keep every matrix's Frobenius norm at sqrt(m) before each update.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        iterations: int = 5,
        scale: Scale = "shape",
        fix_norm: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.found_inf: Tensor | None = None  # (); where it is 1 a step changes nothing
        self._momentum, self._nesterov = momentum, nesterov
        self._iterations, self._scale, self._fix_norm = iterations, scale, fix_norm

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update every parameter that has a gradient; nothing waits for the device."""
        for group in self.param_groups:
            weights: list[Tensor] = [each for each in group["params"] if each.grad is not None]
            if not weights:
                continue
            if self.found_inf is None:
                self._update(weights, group)
            else:
                self._update_unless(self.found_inf, weights, group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        if self._fix_norm:
            _set_norms(weights)
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        self._apply(weights, self._directions(weights), group["lr"])

    def _update_unless(self, skip: Tensor, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Update, then put everything back where `skip` is 1: the device alone knows."""
        changing = [*weights, *(self._momentum_of(weight) for weight in weights)]
        before = [each.clone() for each in changing]
        self._update(weights, group)
        for each, old in zip(changing, before, strict=True):
            torch.where(skip.bool(), old, each, out=each)

    def _directions(self, weights: list[Tensor]) -> list[Tensor]:
        """Update the momentum of each weight; return where it points."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        momenta = [self._momentum_of(weight) for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - self._momentum)
        if not self._nesterov:
            return momenta
        return list(torch._foreach_lerp(gradients, momenta, self._momentum))

    def _momentum_of(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        return momentum

    def _apply(self, weights: list[Tensor], directions: list[Tensor], lr: float | Tensor) -> None:
        """Move the weights along the orthogonalised directions."""
        views = [_channels_behind(weight) for weight in weights]
        matrices = [as_matrix(direction) for direction in directions]
        for places in _stacks(matrices):
            together = [matrices[at] for at in places]
            rate = lr if isinstance(lr, Tensor) else None
            updates = _orthogonalise_together(together, self._iterations, rate)
            moved = [views[at] for at in places]
            shaped = [each.view_as(view) for each, view in zip(updates, moved, strict=True)]
            if self._scale != "none":
                torch._foreach_mul_(shaped, [self._factor(*each.shape) for each in together])
            torch._foreach_add_(moved, shaped, alpha=-1 if isinstance(lr, Tensor) else -lr)

    def _factor(self, rows: int, columns: int) -> float:
        if self._scale == "shape":
            return math.sqrt(max(1.0, rows / columns))
        return 0.2 * math.sqrt(max(rows, columns))


def _stacks(matrices: list[Tensor]) -> list[list[int]]:
    """Which matrices are orthogonalised together, by their places: those of one shape.

    On a GPU, where each of some twenty small kernels takes longer to start than to run, all of
    them, while that makes them no more than `_PADDING` times as many numbers.
    """
    shapes: dict[torch.Size, list[int]] = {}
    for at, matrix in enumerate(matrices):
        shapes.setdefault(matrix.shape, []).append(at)
    numbers = sum(matrix.numel() for matrix in matrices)
    rows, columns = _wide_size(matrices)
    padded = len(matrices) * rows * columns
    if matrices[0].device.type == "cuda" and padded <= _PADDING * numbers:
        return [list(range(len(matrices)))]
    return list(shapes.values())


def _wide_size(matrices: list[Tensor]) -> tuple[int, int]:
    """Rows and columns of what each of the matrices, laid on its side, fits into."""
    return max(min(each.shape) for each in matrices), max(max(each.shape) for each in matrices)


def _orthogonalise_together(
    matrices: list[Tensor], iterations: int, rate: Tensor | None = None
) -> list[Tensor]:
    """Orthogonalise matrices of any shapes in one batch, in which zeros make them equally large.

    Rows and columns of zeros stay what they are and change nothing of the others. A `rate` on
    the device, where a recorded update reads it, multiplies them here: all in one kernel.
    """
    stacked = matrices[0].new_zeros(len(matrices), *_wide_size(matrices))
    wide = [each if each.shape[0] <= each.shape[1] else each.T for each in matrices]
    places = [
        stack[: each.shape[0], : each.shape[1]] for stack, each in zip(stacked, wide, strict=True)
    ]
    torch._foreach_copy_(places, wide)
    found = orthogonalise(stacked, iterations).to(stacked.dtype)
    if rate is not None:
        found = found * rate
    own = [some[: each.shape[0], : each.shape[1]] for some, each in zip(found, wide, strict=True)]
    return [
        some if lying is each else some.T
        for some, lying, each in zip(own, wide, matrices, strict=True)
    ]


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Pull the singular values of each matrix towards 1 and leave its singular vectors alone.

    A Newton-Schulz iteration in bfloat16 (Jordan et al., section "Definition"): its error is
    far below that of a stochastic gradient, and matrix products are where tensor cores are fast.

    Args:
        matrices: (N, m, n), any floating dtype.
        iterations: How often the polynomial is applied.

    Returns:
        (N, m, n) bfloat16.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    norms = torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True)
    x: Tensor = (wide / norms.clamp_min(1e-7)).bfloat16()
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, polynomial, x, beta=_A)
    return x if wide is matrices else x.mT


def _channels_behind(weight: Tensor) -> Tensor:
    """(out, in, ...) as a view (out, ..., in): dense where the memory is channels last."""
    return weight.movedim(1, -1)


def as_matrix(weight: Tensor) -> Tensor:
    """(out, in, k, k) as (out, k * k * in); a view where the memory is channels last.

    The order of the columns does not matter: orthogonalising permutes as its input does.
    """
    return _channels_behind(weight).flatten(1)


def _set_norms(weights: list[Tensor]) -> None:
    """Give every weight the Frobenius norm sqrt(m): its rows have length 1 on average."""
    norms = list(torch._foreach_norm(weights))
    torch._foreach_clamp_min_(norms, 1e-7)
    torch._foreach_div_(weights, norms)
    torch._foreach_mul_(weights, [math.sqrt(len(weight)) for weight in weights])
