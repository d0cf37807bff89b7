"""What steps came to, kept on the device until somebody asks.

A step writes one row, which takes two small copies; rows are added up together. Adding each step
to a sum at once would be a dozen operations, which beside a step of a small network on a CPU, cold
in the cache each time, took 6 % of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEVER = torch.iinfo(torch.int64).max
_ROWS = 64


class Counters:
    """Sums over steps, and which of them was the first that went wrong; nothing waits for it.

    Args:
        device: Where the steps run.
        skips: Whether the update of a step with a gradient that is not finite was left out.

    Attributes:
        skipped_in_a_row: Steps that were left out since the last that was not, as far as whoever
            reads the totals knows.
    """

    def __init__(self, device: torch.device, skips: bool = False) -> None:
        self._skips, self.skipped_in_a_row = skips, 0
        self._table = torch.zeros(_ROWS, 4, device=device)
        self._rows = [(row[:3], row[3]) for row in self._table]
        self._first, self._filled = 0, 0  # the step of the first row, and how many there are
        self._totals = torch.zeros(5, device=device)
        self._first_bad = torch.full((), NEVER, device=device)
        self._never = self._first_bad.clone()
        self._left_out = torch.tensor([0.0, 0, 0, 0, 1], device=device)

    def note(self, step: int, sums: Tensor, norm: Tensor) -> None:
        """Write down a step.

        Args:
            step: Its number, counted from 0 over the whole run.
            sums: (3,) over its pictures: the loss, the right answers, the pictures.
            norm: () the norm of its gradient.
        """
        if step != self._first + self._filled or self._filled == _ROWS:
            self._add_up()
            self._first = step
        kept_sums, kept_norm = self._rows[self._filled]
        kept_sums.copy_(sums)
        kept_norm.copy_(norm)
        self._filled += 1

    @property
    def totals(self) -> Tensor:
        """(5,) sums over the pictures since they were taken, still on the device.

        The loss, the right answers, the pictures, the norm of their batch's gradient, and 1 for
        those whose update was skipped, which count nowhere else.
        """
        self._add_up()
        return self._totals

    @property
    def first_bad(self) -> Tensor:
        """() int64 on the device: the first step whose loss or gradient was not a finite number.

        `NEVER` until there is one; skipped ones do not count.
        """
        self._add_up()
        return self._first_bad

    def take(self) -> Tensor:
        """Hand over the totals, and start new ones."""
        totals = self.totals
        self._totals = torch.zeros_like(totals)
        return totals

    def restore(self, totals: Tensor) -> None:
        """Count on from a checkpoint, behind which nothing has gone wrong."""
        self._first, self._filled = 0, 0
        self._totals.copy_(totals)
        self._first_bad.fill_(NEVER)

    def _add_up(self) -> None:
        """Add the rows to the totals, one after the other: whenever it is done, they are equal."""
        if not self._filled:
            return
        rows = self._table[: self._filled]
        pictures, norm = rows[:, 2:3], rows[:, 3:]
        counted = torch.cat([rows[:, :3], norm * pictures, torch.zeros_like(norm)], dim=1)
        if self._skips:
            counted = torch.where(norm.isfinite(), counted, pictures * self._left_out)
        else:
            self._first_bad = torch.minimum(self._first_bad, self._first_bad_of(rows))
        for row in counted.unbind():
            self._totals += row
        self._first, self._filled = self._first + self._filled, 0

    def _first_bad_of(self, rows: Tensor) -> Tensor:
        steps = torch.arange(self._first, self._first + len(rows), device=rows.device)
        finite = (rows[:, 0] + rows[:, 3]).isfinite()
        return torch.where(finite, self._never, steps).min()
