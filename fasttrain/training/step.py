"""One training step: forward, loss, backward, update, and counters that stay on the device.

Shapes: B is this rank's slice of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain import memory
from fasttrain.config import Train
from fasttrain.data.loader import Pictures
from fasttrain.data.mixing import label_weights, mix, swap
from fasttrain.runtime import Runtime
from fasttrain.training.average import Average
from fasttrain.training.counters import Counters
from fasttrain.training.graphs import Recorded, place_of
from fasttrain.training.optim import Optimizers
from fasttrain.training.randomness import Randomness
from fasttrain.training.resizing import Matrices, Resizer, resize

_CALLS_BEFORE_RECORDING = 2  # in which code is generated and kernels are chosen

# What the compiler may compute again, in operations and reads, before it rather writes it down. On
# a CPU what it writes down in a backward pass may get another memory order than its neighbours:
# transposing took a sixth of a step. A GPU computes faster than it writes: with the defaults, made
# for other networks, the backward passes of ours move up to twice as many bytes.
_ON_CPU: dict[str, str | int | bool | Callable[..., object]] = {"realize_reads_threshold": 16}
_ON_GPU = {**_ON_CPU, "realize_opcount_threshold": 200, "realize_acc_reads_threshold": 32}


class Outcome(NamedTuple):
    """What an update came to, on the device.

    Attributes:
        sums: (3,) over its pictures: the loss, the right answers, the pictures.
        norm: () of its gradient.
        skip: () 1 where it was left out, 0 where not; `None` where none ever is.
    """

    sums: Tensor
    norm: Tensor
    skip: Tensor | None


class Objective(nn.Module):
    """The model and what is asked of it: one graph from pictures to loss.

    A run mixes either all its batches or none, so there is one graph for each size of pictures.

    Args:
        model: The network.
        label_smoothing: See `TrainingStep`.
        bf16: Whether the forward pass runs in bfloat16 where that is precise enough.
    """

    def __init__(self, model: nn.Module, label_smoothing: float, bf16: bool = False) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.bf16 = bf16

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        mixing: Tensor | None = None,
        smaller: Matrices | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss, and (3,) sums: the loss, the right answers, the pictures.

        Pictures are mixed at their full size, then made smaller. Where pictures are mixed, the
        first two are weighted sums over a picture's label and its partner's.
        """
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            return self._loss_and_sums(images, labels, mixing, smaller)

    def _loss_and_sums(
        self, images: Tensor, labels: Tensor, mixing: Tensor | None, smaller: Matrices | None
    ) -> tuple[Tensor, Tensor]:
        own = None
        if mixing is not None:
            own = label_weights(mixing, images.shape[2], images.shape[3])
            images = mix(images, mixing)
        if smaller is not None:
            images = resize(images, smaller)
        logits = self.model(images).float()
        if own is None:
            loss, correct = self._score(logits, labels)
        else:
            partners = self._score(logits, swap(labels))
            mine = self._score(logits, labels)
            loss, correct = (torch.lerp(b, a, own) for a, b in zip(mine, partners, strict=True))
        mean, count = loss.mean(), torch.full((), float(len(labels)), device=loss.device)
        return mean, torch.stack([mean.detach() * count, correct.sum(), count])

    def _score(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """For each row the loss, and 1 where the answer is right; (B,) each."""
        loss = F.cross_entropy(
            logits, labels, label_smoothing=self.label_smoothing, reduction="none"
        )
        return loss, (logits.detach().argmax(dim=1) == labels).float()


class TrainingStep:
    """Executes training steps; nothing in it waits for the device.

    Args:
        model: On any device; it is placed, joined over the ranks and compiled here.
        optimizer: Over the model's parameters.
        runtime: Where this runs.
        train: `label_smoothing` is the weight taken from the true class and spread over all
            (Szegedy et al., "Rethinking the Inception Architecture", arXiv 1512.00567,
            section 7); `accumulate` cuts a batch into so many parts, of which only one is in
            memory at a time and each of which batch norm takes for a batch, or for several
            ghost batches; it is a number here (`parts.in_parts`); `clip_norm` bounds
            the norm of all gradients together (Pascanu et al., "On the difficulty of training
            recurrent neural networks", arXiv 1211.5063, section 3.2).
        seed: The run's seed, for what the model draws.
        average: Follows the model.
        resizer: Says how large the pictures of a step are.

    Attributes:
        counters: What the steps came to.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        runtime: Runtime,
        train: Train,
        seed: int,
        average: Average | None = None,
        resizer: Resizer | None = None,
    ) -> None:
        self._resizer = resizer
        self._model, self._optimizer, self._average = model, optimizer, average
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        if train.accumulate == "auto":
            raise ValueError("a step needs train.accumulate as a number: see parts.in_parts")
        self._parts, self._clip_norm = train.accumulate, train.clip_norm
        self._skips, self._world = train.on_divergence == "skip", runtime.world
        self._randomness = Randomness(seed, runtime.rank, runtime.device)
        joined = runtime.prepare(Objective(model, train.label_smoothing, runtime.bf16))
        self._graphs, self._must_record = runtime.uses_graphs(train), train.cuda_graphs is True
        self._recorded: dict[tuple[int, int] | None, Recorded[Outcome]] = {}
        options = _ON_GPU if runtime.device.type == "cuda" else _ON_CPU
        self._objective = (
            torch.compile(joined, dynamic=False, options=options) if runtime.compile else joined
        )
        self._no_sync = partial(runtime.no_sync, joined)
        # The share of a part in the mean loss of its batch: where its backward pass begins.
        self._share = torch.tensor(1 / self._parts, device=runtime.device)
        # What a step changes beside what its optimiser looks after, where it may be skipped.
        self._kept: list[Tensor] = list(model.buffers()) if self._skips else []
        if self._skips and average is not None:
            self._kept += [*average.model.parameters(), *average.model.buffers()]
        self.counters = Counters(runtime.device, self._skips)

    def __call__(self, step: int, pictures: Pictures, factor: float) -> None:
        """Train on batch number `step`; the model must be in training mode.

        Args:
            step: Counted from 0 over the whole run; it decides what the model draws.
            pictures: This rank's slice of the batch, divisible by `train.accumulate`.
            factor: Of the optimiser's rates.
        """
        self._randomness.seed(step)
        self._optimizer.set_rates(factor)
        before = [value.clone() for value in self._kept]
        smaller = self._resizer(step) if self._resizer else None
        recorded = self._recorded.get(_size(smaller))
        done = recorded(pictures) if recorded else self._update(pictures, smaller)
        self.counters.note(step, done.sums, done.norm)
        if self._average is not None:
            self._average.update(step)
        if done.skip is not None:
            for value, old in zip(self._kept, before, strict=True):
                torch.where(done.skip.bool(), old, value, out=value)

    def _update(self, pictures: Pictures, smaller: Matrices | None) -> Outcome:
        """Compute the gradient over `pictures` and let the optimiser use it."""
        *first, last = pictures.split(len(pictures.labels) // self._parts)
        with self._no_sync():
            figures = [self._backward(part, smaller) for part in first]
        figures.append(self._backward(last, smaller))  # over several ranks, gradients meet here
        norm = self._clip()
        # The gradient is the same on all ranks, so all of them skip or none.
        skip = (~norm.isfinite()).float() if self._skips else None
        self._optimizer.update(skip)
        self._optimizer.zero_grad()
        return Outcome(_sum(figures), norm, skip)

    def warm_up(self, step: int, pictures: Pictures) -> str | None:
        """Let code be generated for all sizes that come later; nothing that is trained changes.

        On a GPU the updates are recorded, too, and so for the present size as well.

        More than two ranks also exchange gradients once: torch orders them anew after the first
        time, and sums of three numbers depend on it. So a run that goes on adds as it would have.

        Args:
            step: The next one.
            pictures: Its slice of the batch.

        Returns:
            Why updates were not recorded, if memory did not suffice; steps do without.

        Raises:
            torch.OutOfMemoryError: it did not, and `train.cuda_graphs` is true.
        """
        self.forget()
        sizes = self._resizer.after(step) if self._resizer else []
        if self._world > 2 or self._graphs:
            sizes = [self._resizer(step) if self._resizer else None, *sizes]
        buffers = list(self._model.buffers())
        before = [buffer.clone() for buffer in buffers]
        for smaller in sizes:
            for _ in range(_CALLS_BEFORE_RECORDING if self._graphs else 1):
                part = pictures.split(len(pictures.labels) // self._parts)[-1]
                self._backward(part, smaller)
                self._optimizer.zero_grad()
            memory.trim()
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(old)
        return self._try_to_record(pictures, sizes) if self._graphs else None

    def _try_to_record(self, pictures: Pictures, sizes: list[Matrices | None]) -> str | None:
        """A recording takes memory beyond a step's, so it can fail where the step itself runs.

        Only that is borne: other failures leave torch's memory and generators in disorder.
        """
        try:
            self._record(pictures, sizes)
        except torch.OutOfMemoryError as error:
            if self._must_record:
                raise
            self._graphs, reason = False, str(error).partition("\n")[0] or "out of memory"
        else:
            return None
        self.forget()
        self._optimizer.keep_rates_here()
        self._optimizer.zero_grad()  # gradients may lie in the failed recording's memory
        torch.cuda.empty_cache()
        return reason

    def _record(self, pictures: Pictures, sizes: list[Matrices | None]) -> None:
        """Record the update for every size.

        The largest comes first: the others find room in what it has left.
        """
        torch.cuda.empty_cache()  # what stays must not lie among what has passed
        self._optimizer.begin()
        self._optimizer.keep_rates_on(pictures.images.device)
        place, pool = place_of(pictures), torch.cuda.graph_pool_handle()
        for smaller in sorted(sizes, key=_pixels, reverse=True):
            update = partial(self._update, smaller=smaller)
            self._recorded[_size(smaller)] = Recorded(update, place, pool)

    def forget(self) -> None:
        """Let go of what was recorded, and of the memory it takes: things may move, or end."""
        self._recorded.clear()

    def _backward(self, part: Pictures, smaller: Matrices | None) -> Tensor:
        """Add to the gradients; return (3,) sums of the loss, right answers and pictures."""
        loss, figures = self._objective(part.images, part.labels, part.mixing, smaller)
        loss.backward(self._share)
        return cast(Tensor, figures)

    def _clip(self) -> Tensor:
        """Return the norm of all gradients together, which it bounds where that is wanted."""
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        if self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._weights, self._clip_norm, norm, foreach=True)
        return norm


def _size(smaller: Matrices | None) -> tuple[int, int] | None:
    """Height and width that pictures are made to have; `None` for their own."""
    return None if smaller is None else (len(smaller.rows), smaller.columns.shape[1])


def _pixels(smaller: Matrices | None) -> float:
    """How many they then have; more than any other where they stay as they are."""
    size = _size(smaller)
    return float("inf") if size is None else size[0] * size[1]


def _sum(figures: list[Tensor]) -> Tensor:
    """Of all parts of a batch; most have one."""
    return torch.stack(figures).sum(dim=0) if len(figures) > 1 else figures[0]
