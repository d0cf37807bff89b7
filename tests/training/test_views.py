"""Test-time views: what they look at, and with what weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fasttrain.config import Tta
from fasttrain.training.views import look


class Pixels(nn.Module):
    """Answers with all pixels: the mean over views then shows what was seen."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.fixture
def picture() -> Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def seen(picture: Tensor, tta: Tta) -> Tensor:
    return look(Pixels(), picture, tta).view_as(picture)


def test_without_views_the_model_sees_the_picture(picture: Tensor) -> None:
    assert torch.equal(seen(picture, "none"), picture)


def test_the_mirror_image_counts_as_much(picture: Tensor) -> None:
    assert torch.equal(seen(picture, "flip"), (picture + picture.flip(3)) / 2)


def test_shifted_views_count_half(picture: Tensor) -> None:
    """Away from the border: a pixel and its neighbours on the diagonal, weighted 2, 1, 1."""
    found = seen(picture, "shift")
    near = (2 * picture[:, :, 1:-1, 1:-1] + picture[:, :, :-2, :-2] + picture[:, :, 2:, 2:]) / 4
    even = (near + near.flip(3)) / 2  # every view comes with its mirror image
    torch.testing.assert_close(found[:, :, 1:-1, 1:-1], even)


def test_views_of_a_symmetric_answer_change_nothing() -> None:
    alike = torch.ones(2, 3, 4, 4)
    for tta in ("flip", "shift"):
        assert torch.equal(seen(alike, tta), alike)


def test_all_views_are_of_one_layout() -> None:
    """So that code which is compiled for one serves all."""
    seen = []

    def model(images: Tensor) -> Tensor:
        seen.append((tuple(images.shape), images.stride()))
        return images.mean(dim=(2, 3))

    look(model, torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last), "shift")

    assert len(seen) == 6
    assert len(set(seen)) == 1
