"""One pass over a split: every picture counted exactly once, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.config import Tta
from fasttrain.data.loader import Loader, Pictures
from fasttrain.data.plan import EvaluationPlan
from fasttrain.runtime import Runtime
from fasttrain.training.views import look


@dataclass(frozen=True)
class Score:
    """What an evaluation found.

    Attributes:
        loss: Mean cross-entropy, in nats, without label smoothing.
        accuracy: Share of right answers, 0 to 1.
        count: Pictures counted.
    """

    loss: float
    accuracy: float
    count: int


class Scorer(nn.Module):
    """The model and the figures of a batch, as one graph of one shape."""

    def __init__(self, model: nn.Module, tta: Tta) -> None:
        super().__init__()
        self.model, self.tta = model, tta

    def forward(self, images: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return (3,) sums over the rows with `valid`: loss, right answers, pictures."""
        logits = look(self.model, images, self.tta).float()
        loss = F.cross_entropy(logits, labels, reduction="none")
        correct = logits.argmax(dim=1) == labels
        rows = torch.stack([loss, correct.float(), torch.ones_like(loss)])
        return torch.where(valid, rows, 0.0).double().sum(dim=1)


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
        self._scorer = Scorer(model, tta)
        self._runtime = runtime
        self._score = (
            torch.compile(self._scorer, dynamic=False) if runtime.compile else self._scorer
        )
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
        self._sums(Pictures(images.to(memory_format=torch.channels_last), labels, 0))
        return True

    def __call__(self, evaluation: Evaluation, between: Callable[[], None] = lambda: None) -> Score:
        """Make one pass; the model is left in evaluation mode.

        Every rank scores what the main rank would write as a checkpoint.

        Args:
            evaluation: The pass.
            between: Called after every batch; it may raise, which abandons the pass.

        Raises:
            RuntimeError: the pictures counted over all ranks are not those of the split: a bug.
        """
        self._runtime.share_buffers(self._scorer)
        sums = torch.zeros(3, dtype=torch.float64, device=self._runtime.device)
        for pictures in evaluation.loader.batches(0, evaluation.plan.steps_per_epoch):
            sums += self._sums(pictures)
            between()
        loss, correct, count = self._runtime.sum(sums).tolist()
        expected = len(evaluation.plan.pictures)
        if count != expected:
            raise RuntimeError(f"an evaluation counted {count:.0f} pictures of {expected}")
        return Score(loss / count, correct / count, int(count))

    @torch.no_grad()
    def _sums(self, pictures: Pictures) -> Tensor:
        self._scorer.eval()
        valid = torch.arange(len(pictures.labels), device=pictures.labels.device) < pictures.valid
        with self._runtime.autocast():
            sums: Tensor = self._score(pictures.images, pictures.labels, valid)
        return sums
