"""Where the time of a run goes, and figures that leave the device without stopping it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from fasttrain.training.gaps import Gaps

Phase = Literal["train", "data", "compile", "evaluate", "checkpoint"]
PHASES: tuple[Phase, ...] = ("train", "data", "compile", "evaluate", "checkpoint")


class Clock:
    """Splits the wall time of a run into phases: every second belongs to exactly one.

    `data` is waiting for the loader, `train` the rest of the training loop, `compile` the first
    step and the evaluation's warm-up, in which code is generated. On a GPU, beside which the host
    runs ahead, `data` is what the GPU says it waited.

    Args:
        gaps: Knows what a GPU waited; without it, the host's waiting counts.

    Attributes:
        seconds: Seconds for each phase.
        images: Pictures trained on over all ranks, the first step left out.
    """

    def __init__(self, gaps: Gaps | None = None) -> None:
        self._gaps = gaps
        self.seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self.images = 0
        self._last = time.perf_counter()
        self._reported = (0, 0.0, 0.0)

    def start(self) -> None:
        """Begin to count from now."""
        self._last = time.perf_counter()

    def lap(self, phase: Phase) -> None:
        """Give the time since the last lap to a phase."""
        now = time.perf_counter()
        if self._gaps is None:
            self.seconds[phase] += now - self._last
        else:
            self._lap_beside(self._gaps, phase, now - self._last)
        self._last = now

    def _lap_beside(self, gaps: Gaps, phase: Phase, seconds: float) -> None:
        """The host's time is training's, until the device says how much of it was waiting."""
        match phase:
            case "train":
                gaps.open()
            case "data":
                gaps.close()
            case _:
                gaps.drop()
        self.seconds["train" if phase == "data" else phase] += seconds
        waited = min(gaps.take(), self.seconds["train"])
        self.seconds["train"] -= waited
        self.seconds["data"] += waited

    @property
    def train_seconds(self) -> float:
        """Seconds of training: steps and waiting for data; nothing else."""
        return self.seconds["train"] + self.seconds["data"]

    @property
    def images_per_second(self) -> float:
        """Training throughput over all ranks."""
        return self.images / self.train_seconds if self.train_seconds else 0.0

    @property
    def data_stall(self) -> float:
        """Share of the training time spent waiting for data, 0 to 1."""
        return self.seconds["data"] / self.train_seconds if self.train_seconds else 0.0

    def interval(self) -> dict[str, float]:
        """Throughput and data stall since the last call, and the training seconds so far."""
        now = (self.images, self.train_seconds, self.seconds["data"])
        images, seconds, data = (new - old for new, old in zip(now, self._reported, strict=True))
        self._reported = now
        return {
            "images_per_second": images / seconds if seconds else 0.0,
            "data_stall": data / seconds if seconds else 0.0,
            "seconds": self.train_seconds,
        }

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"images": self.images, **{str(name): self.seconds[name] for name in PHASES}}

    def restore(self, state: dict[str, float]) -> None:
        """Count on from a checkpoint."""
        self.seconds = {phase: state[phase] for phase in PHASES}
        self.images = int(state["images"])
        self._reported = (self.images, self.train_seconds, self.seconds["data"])


class Readout:
    """Brings small tensors from the device to the host without waiting for it.

    What is pushed is copied in the background. On a CPU it comes out at once; on a GPU at the next
    push, when it has long arrived: always then and not sooner, so that all ranks learn the same
    at the same step.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[dict[str, float], Tensor, torch.cuda.Event | None]] = deque()

    def push(self, label: dict[str, float], values: Tensor) -> None:
        """Start to copy `values`; `label` comes out with them."""
        if values.device.type != "cuda":
            self._pending.append((label, values, None))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        event.record()
        self._pending.append((label, host, event))

    def arrived(self, wait: bool = False) -> Iterator[tuple[dict[str, float], list[float]]]:
        """Yield what was pushed, on a GPU all but the last one; with `wait`, that too."""
        while self._pending:
            label, host, event = self._pending[0]
            if event is not None:
                if len(self._pending) == 1 and not wait:
                    return
                event.synchronize()
            self._pending.popleft()
            yield label, host.tolist()

    def clear(self) -> None:
        """Forget what was pushed."""
        self._pending.clear()
