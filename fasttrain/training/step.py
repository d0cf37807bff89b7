"""One training step: forward, loss, backward, update, and counters that stay on the device.

Shapes: B is this rank's slice of the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.data.loader import Pictures
from fasttrain.data.mixing import label_weights, mix, swap
from fasttrain.runtime import Runtime


class Objective(nn.Module):
    """The model and what is asked of it: one graph from pictures to loss.

    A run mixes either all its batches or none, so the graph never changes.
    """

    def __init__(self, model: nn.Module, label_smoothing: float) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing

    def forward(
        self, images: Tensor, labels: Tensor, mixing: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss, and (2,) the sum of the loss and the number of right answers.

        Where pictures are mixed, both are weighted sums over a picture's label and its partner's.
        """
        if mixing is None:
            loss, correct = self._score(self.model(images).float(), labels)
        else:
            own = label_weights(mixing, images.shape[2], images.shape[3])
            logits = self.model(mix(images, mixing)).float()
            partners = self._score(logits, swap(labels))
            mine = self._score(logits, labels)
            loss, correct = (torch.lerp(b, a, own) for a, b in zip(mine, partners, strict=True))
        mean = loss.mean()
        return mean, torch.stack([mean.detach() * len(labels), correct.sum()])

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
        label_smoothing: Weight taken from the true class and spread over all (Szegedy et al.,
            "Rethinking the Inception Architecture", arXiv 1512.00567, section 7).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        runtime: Runtime,
        label_smoothing: float,
    ) -> None:
        self._optimizer = optimizer
        objective = runtime.prepare(Objective(model, label_smoothing))
        self._objective = torch.compile(objective, dynamic=False) if runtime.compile else objective
        # (2,) on the device: the sum of the loss and the right answers since they were taken.
        self._totals = torch.zeros(2, device=runtime.device)

    def __call__(self, pictures: Pictures) -> None:
        """Train on one batch; the model must be in training mode."""
        loss, totals = self._objective(pictures.images, pictures.labels, pictures.mixing)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._totals += totals

    def take_totals(self) -> Tensor:
        """Hand over the counters, still on the device, and start new ones."""
        totals, self._totals = self._totals, torch.zeros_like(self._totals)
        return totals
