"""How the ranks agree on what to do next without waiting for each other."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor


class Vote:
    """Lets the ranks learn, a few steps later, what any of them wants.

    All ranks get the same answer at the same step, and none waits for it: a vote has long
    arrived when it is counted. It goes from host to host and leaves GPUs alone.

    Args:
        world: Number of ranks; every rank makes its own object at the same place.
        timeout: How long one may keep the others waiting.

    Attributes:
        LAG: How many votes later the answer comes, with several ranks.
    """

    LAG = 2  # steps; on GPUs the hosts of two ranks drift apart by no more than that

    def __init__(self, world: int, timeout: timedelta) -> None:
        group = dist.new_group(backend="gloo", timeout=timeout) if world > 1 else None
        self._group = cast(dist.ProcessGroup | None, group)
        self._cast: deque[tuple[Tensor, dist.Work]] = deque()

    def __call__(self, *wishes: bool) -> list[bool]:
        """Say what this rank wants; return what any rank wanted, a few steps ago."""
        if self._group is None:
            return list(wishes)
        ballot = torch.tensor(wishes, dtype=torch.uint8)
        work = dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._cast.append((ballot, work))
        if len(self._cast) <= self.LAG:
            return [False] * len(wishes)
        return self._count()

    def close(self) -> None:
        """Count what is left; all ranks have voted as often."""
        while self._cast:
            self._count()

    def _count(self) -> list[bool]:
        ballot, work = self._cast.popleft()
        work.wait()
        return [bool(wish) for wish in ballot.tolist()]
