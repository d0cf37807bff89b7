"""Colour maps against torchvision's own functions and against what must stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from fasttrain.data import colour
from fasttrain.data.colour import jitter, measure, recolor


@pytest.fixture
def images() -> Tensor:
    """Pictures far from black and white, so that nothing is clamped between two steps."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(60, 160, (20, 8, 9, 3), dtype=torch.uint8, generator=generator)


def jittered(images: Tensor, *factors: float) -> Tensor:
    drawn = torch.tensor([factors]).repeat(len(images), 1)
    return recolor(images, jitter(drawn, measure(images)[:, 0]))


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in grey levels, from pictures in torchvision's layout."""
    return float((found.float() - expected.permute(0, 2, 3, 1).float()).abs().max())


@pytest.mark.parametrize(("pixels", "largest"), [(8 * 9 * 7, 7), (1, 1)])
def test_pictures_are_measured_a_few_pixels_at_a_time(
    pixels: int, largest: int, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    def counted(part: Tensor) -> Tensor:
        counts.append(len(part))
        return measure(part)

    monkeypatch.setattr(colour, "_MEASURED", pixels)
    monkeypatch.setattr(colour, "measure", counted)
    assert torch.equal(colour.measure_all(images.numpy()), measure(images))
    assert max(counts) == largest


def test_a_large_picture_is_measured_as_a_small_one() -> None:
    """Its levels add up to more than 32 bits hold."""
    white = torch.tensor(255, dtype=torch.uint8).expand(1, 4096, 4096, 3)
    assert measure(white).eq(255).all()


def test_no_change_changes_nothing(images: Tensor) -> None:
    assert torch.equal(jittered(images, 1, 1, 1, 0), images)
    assert torch.equal(jittered(images, 1, 1, 1, 1), images)  # a full turn of the hue


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.2, 1.5])
def test_each_factor_means_what_torchvision_means(images: Tensor, factor: float) -> None:
    """Within one grey level: torchvision cuts fractions off, and here they are rounded."""
    pictures = images.permute(0, 3, 1, 2)
    assert off(jittered(images, factor, 1, 1, 0), vision.adjust_brightness(pictures, factor)) <= 1
    assert off(jittered(images, 1, factor, 1, 0), vision.adjust_contrast(pictures, factor)) <= 1
    assert off(jittered(images, 1, 1, factor, 0), vision.adjust_saturation(pictures, factor)) <= 1


def test_all_factors_are_applied_in_their_order(images: Tensor) -> None:
    pictures = images.permute(0, 3, 1, 2).float() / 255
    expected = vision.adjust_brightness(pictures, 1.2)
    expected = vision.adjust_contrast(expected, 0.7)
    expected = vision.adjust_saturation(expected, 1.3)
    assert off(jittered(images, 1.2, 0.7, 1.3, 0), expected * 255) <= 1


def test_hue_leaves_greys_and_brightness_alone_and_turns_back(images: Tensor) -> None:
    greys = images[..., :1].expand(-1, -1, -1, 3).contiguous()
    assert torch.equal(jittered(greys, 1, 1, 1, 0.3), greys)
    weights = torch.tensor([0.299, 0.587, 0.114])
    turned = jittered(images, 1, 1, 1, 0.05)
    assert ((turned.float() - images.float()) @ weights).abs().max() <= 1
    assert (jittered(turned, 1, 1, 1, -0.05).int() - images.int()).abs().max() <= 2


def test_hue_turns_red_towards_yellow_and_on_to_green() -> None:
    red = torch.tensor([[[[160, 60, 60]]]], dtype=torch.uint8)
    yellow, green = jittered(red, 1, 1, 1, 1 / 6)[0, 0, 0], jittered(red, 1, 1, 1, 1 / 3)[0, 0, 0]
    assert yellow[2] < min(yellow[0], yellow[1])
    assert green[1] > max(green[0], green[2])


def test_contrast_turns_about_the_stored_pictures_own_grey(images: Tensor) -> None:
    """Even where a crop has brought in black."""
    drawn = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).repeat(len(images), 1)
    cropped = images.clone()
    cropped[:, :4] = 0
    flat = recolor(cropped, jitter(drawn, measure(images)[:, 0]))
    weights = torch.tensor([0.299, 0.587, 0.114])
    assert (flat[:, 0, 0, 0] - measure(images)[:, 0] @ weights).abs().max() <= 0.5
    assert torch.equal(flat, flat[:, :1, :1, :1].expand_as(flat))
