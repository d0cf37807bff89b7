"""One pass over a split: every picture counted exactly once, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fasttrain.answers import Answers
from fasttrain.config import Tta
from fasttrain.data.loader import Loader, Pictures
from fasttrain.data.plan import EvaluationPlan
from fasttrain.runtime import Runtime
from fasttrain.training.views import look

_COLUMNS = 5


class Scorer(nn.Module):
    """The model and what is kept of its answers."""

    def __init__(self, model: Callable[[Tensor], Tensor], tta: Tta) -> None:
        super().__init__()
        self.model, self.tta = model, tta

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (B, 5): label, likeliest class, its probability, the label's rank, the loss."""
        logits = look(self.model, images, self.tta).float()
        own = logits.gather(1, labels[:, None])
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        rank = (logits > own).sum(dim=1)
        loss = F.cross_entropy(logits, labels, reduction="none")
        return torch.stack([labels, predicted, confidence, rank, loss], dim=1)


@dataclass(frozen=True)
class Evaluation:
    """One pass over a split: who delivers it, and what it holds."""

    loader: Loader
    plan: EvaluationPlan


class Evaluator:
    """Scores a model on a split.

    Args:
        model: On the runtime's device, uncompiled and not joined over the ranks.
        runtime: Where this runs.
        tta: How it looks at each picture.
    """

    def __init__(self, model: nn.Module, runtime: Runtime, tta: Tta = "none") -> None:
        # The network alone: with all views in it the graph would be six times as large, and take
        # as much longer to compile.
        network = torch.compile(model, dynamic=False) if runtime.compile else model
        self._scorer = Scorer(network, tta)
        self._runtime = runtime
        self._warm: set[int] = set()

    def warm_up(self, evaluation: Evaluation, size: tuple[int, int]) -> bool:
        """Let the code for this batch size be generated, on an empty batch; say if it was new."""
        share = evaluation.plan.batch_size // self._runtime.world
        if share in self._warm:
            return False
        self._warm.add(share)
        device = self._runtime.device
        images = torch.zeros(share, 3, *size, device=device)
        labels = torch.zeros(share, dtype=torch.int64, device=device)
        self._rows(Pictures(images.to(memory_format=torch.channels_last), labels, 0))
        return True

    def __call__(
        self, evaluation: Evaluation, between: Callable[[], None] = lambda: None
    ) -> Answers:
        """Make one pass; the model is left in evaluation mode.

        Every rank scores what the main rank would write as a checkpoint.

        Args:
            evaluation: The pass.
            between: Called after every batch; it may raise, which abandons the pass.

        Raises:
            RuntimeError: the pictures counted over all ranks are not those of the split: a bug.
        """
        self._runtime.share_buffers(self._scorer)
        rows, counted = [], 0
        for pictures in evaluation.loader.batches(0, evaluation.plan.steps_per_epoch):
            rows.append(self._rows(pictures))
            counted += pictures.valid
            between()
        count = int(self._runtime.sum(torch.tensor(counted, device=self._runtime.device)))
        expected = len(evaluation.plan.pictures)
        if count != expected:
            raise RuntimeError(f"an evaluation counted {count} pictures of {expected}")
        # A batch is the ranks' slices one after the other; the padding stands at the very end.
        every = torch.stack(self._runtime.gather(torch.stack(rows)), dim=1)
        return _answers(every.reshape(-1, _COLUMNS)[:count].cpu().numpy())

    @torch.no_grad()
    def _rows(self, pictures: Pictures) -> Tensor:
        self._scorer.eval()
        with self._runtime.autocast():
            rows: Tensor = self._scorer(pictures.images, pictures.labels)
        return rows


def _answers(rows: NDArray[np.float32]) -> Answers:
    """From (N, 5) what `Scorer` returns; a class or rank below 2^24 is exact in float32."""
    label, predicted, confidence, rank, loss = np.ascontiguousarray(rows.T)
    label, predicted, rank = (column.astype(np.int64) for column in (label, predicted, rank))
    return Answers(label, predicted, confidence, rank, loss)
