"""Several batches at a time, for a GPU: what a loader's call costs is paid once for all of them.

A GPU makes a batch of 512 small pictures in a few microseconds; to ask for it takes the host a
hundred, and DALI several hundred. So a loader is given a plan of fewer, larger batches, and what
it delivers is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from fasttrain.data.loader import Loader, Pictures
from fasttrain.data.plan import Array, Batch, Plan, Shard, TrainingPlan

# In a group, at most, unless one batch has more: 128 MB of float32, and no more pictures than rows
# in a grid of CUDA's, of which DALI's kernels take one for each.
_MOST_NUMBERS, _MOST_PICTURES = 32_000_000, 65_535


def batches_at_once(plan: Plan, share: int, size: tuple[int, int]) -> int:
    """How many batches of `share` pictures of H x W a GPU is best asked for at a time.

    As many as fit, but in equal groups: the last one of an epoch is filled up.
    """
    most = max(min(_MOST_NUMBERS // (3 * size[0] * size[1]), _MOST_PICTURES) // share, 1)
    groups = -(-plan.steps_per_epoch // most)
    return -(-plan.steps_per_epoch // groups)


class Groups(Plan):
    """A rank's slices of `at_once` batches in a row, as one batch.

    All groups have one size, as compiled code needs it: an epoch's last one is filled up with
    pictures of its first, which nobody looks at.

    While an epoch is executed a thread plans the next, which takes some milliseconds: a GPU would
    wait for it.

    Args:
        plan: Of full batches.
        shard: The rank.
        at_once: How many batches make a group.
    """

    def __init__(self, plan: TrainingPlan, shard: Shard, at_once: int) -> None:
        self._plan, self._shard, self.at_once = plan, shard, at_once
        self.share = shard.share(plan.batch_size)
        self.batch_size = self.share * at_once
        self.steps_per_epoch = -(-plan.steps_per_epoch // at_once)
        self._planned: dict[int, Future[Batch]] = {}  # the epoch that was asked for, and the next
        self._thread = ThreadPoolExecutor(1, "fasttrain-plan")

    def epoch(self, epoch: int) -> Batch:
        """This rank's rows of the whole epoch, as one long batch."""
        self._planned = {
            each: self._planned.get(each) or self._thread.submit(self._plan_epoch, each)
            for each in (epoch, epoch + 1)
        }
        return self._planned[epoch].result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _plan_epoch(self, epoch: int) -> Batch:
        whole = self._plan.epoch(epoch)
        draws = {name: self._own(values) for name, values in whole.draws.items()}
        indices = self._own(whole.indices)
        return Batch(indices, draws, len(indices))

    def _own(self, values: Array) -> Array:
        """This rank's rows, as many as all groups hold."""
        by_rank = values.reshape(-1, self._shard.world, self.share, *values.shape[1:])
        own = by_rank[:, self._shard.rank].reshape(-1, *values.shape[1:])
        missing = self.steps_per_epoch * self.batch_size - len(own)
        return np.concatenate([own, own[np.arange(missing) % len(own)]]) if missing else own

    def find(self, step: int) -> tuple[int, int]:
        """The group that holds the plan's batch `step`, and which of its batches that is."""
        epoch, within = divmod(step, self._plan.steps_per_epoch)
        group, place = divmod(within, self.at_once)
        return epoch * self.steps_per_epoch + group, place

    def filled(self, group: int) -> int:
        """How many of a group's batches are the plan's."""
        before = group % self.steps_per_epoch * self.at_once
        return min(self._plan.steps_per_epoch - before, self.at_once)


class GroupLoader:
    """Lets another loader deliver groups, and cuts them; see `loader.Loader` for the contract.

    Args:
        groups: The plan that the other one executes.
        make: Builds it, for such a plan.
    """

    def __init__(self, groups: Groups, make: Callable[[Plan, Shard], Loader]) -> None:
        self._groups = groups
        self._loader = make(groups, Shard())
        self.name = self._loader.name
        self.ahead = (self._loader.ahead + 1) * groups.at_once

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        """Yield this rank's slices of batches `first` to `last - 1`."""
        if first >= last:
            return
        start, place = self._groups.find(first)
        end, _ = self._groups.find(last - 1)
        left = last - first
        for number, group in enumerate(self._loader.batches(start, end + 1), start):
            pieces = group.split(self._groups.share)[place : self._groups.filled(number)][:left]
            yield from pieces
            left, place = left - len(pieces), 0

    def close(self) -> None:
        """End the other one's helpers, and the planning."""
        try:
            self._loader.close()
        finally:
            self._groups.close()
