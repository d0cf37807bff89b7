"""What each augmentation does, on pictures small enough to work out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from fasttrain.config import Crop, Cutout, Flip
from fasttrain.data.augment import (
    Transform,
    crop,
    cutout,
    flip,
    gather_pixels,
    mirror_border,
    normalize,
    reflect,
    source_positions,
)

# One channel of a 4 x 4 picture; the others are 100 and 200 more, modulo 256.
GREY = [
    [11, 12, 13, 14],
    [21, 22, 23, 24],
    [31, 32, 33, 34],
    [41, 42, 43, 44],
]


def picture(rows: list[list[int]] = GREY) -> Tensor:
    """(1, H, W, 3) uint8."""
    red = torch.tensor(rows, dtype=torch.uint8)
    return torch.stack([red, red + 100, red + 200], dim=-1)[None]


def reds(images: Tensor) -> list[list[int]]:
    """The first channel of the first picture."""
    assert images.dtype == torch.uint8
    rows: list[list[int]] = images[0, :, :, 0].tolist()
    return rows


def random_pictures(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


# Crop


def test_a_crop_at_the_padding_is_the_picture_itself() -> None:
    for mode in ("zero", "reflect"):
        assert torch.equal(crop(picture(), torch.tensor([[2, 2]]), 2, mode), picture())


def test_a_crop_at_the_corner_shows_the_padding_above_and_left() -> None:
    assert reds(crop(picture(), torch.tensor([[0, 0]]), 1, "zero")) == [
        [0, 0, 0, 0],
        [0, 11, 12, 13],
        [0, 21, 22, 23],
        [0, 31, 32, 33],
    ]


def test_a_crop_takes_its_row_first_and_its_column_second() -> None:
    assert reds(crop(picture(), torch.tensor([[2, 0]]), 1, "zero")) == [
        [0, 21, 22, 23],
        [0, 31, 32, 33],
        [0, 41, 42, 43],
        [0, 0, 0, 0],
    ]


def test_a_reflecting_crop_mirrors_without_the_border_pixel() -> None:
    assert reds(crop(picture(), torch.tensor([[0, 4]]), 2, "reflect")) == [
        [33, 34, 33, 32],
        [23, 24, 23, 22],
        [13, 14, 13, 12],
        [23, 24, 23, 22],
    ]


def test_every_picture_is_cut_at_its_own_corner_in_all_channels() -> None:
    images = picture().repeat(2, 1, 1, 1)
    cut = crop(images, torch.tensor([[1, 2], [0, 1]]), 1, "zero")
    assert cut[0].tolist()[0] == [[12, 112, 212], [13, 113, 213], [14, 114, 214], [0, 0, 0]]
    assert cut[1].tolist()[1] == [[11, 111, 211], [12, 112, 212], [13, 113, 213], [14, 114, 214]]


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("padding", [1, 2, 3])
def test_every_crop_is_a_piece_of_what_numpy_pads(mode: str, numpy_mode: str, padding: int) -> None:
    images = random_pictures(1, 4, 5)
    frame = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    padded = np.pad(images.numpy(), frame, mode=numpy_mode)  # type: ignore[call-overload]
    for top, left in itertools.product(range(2 * padding + 1), repeat=2):
        expected = padded[:, top : top + 4, left : left + 5]
        assert np.array_equal(crop(images, torch.tensor([[top, left]]), padding, mode), expected)


@pytest.mark.parametrize("length", [2, 3, 8])
def test_positions_are_reflected_as_numpy_pads(length: int) -> None:
    reach = length - 1
    expected = np.pad(np.arange(length), reach, mode="reflect").tolist()
    assert reflect(torch.arange(-reach, length + reach), length).tolist() == expected


@pytest.mark.parametrize(("margin", "size"), [(0, (5, 4)), (1, (2, 7)), (3, (6, 4))])
def test_a_border_is_mirrored_as_numpy_pads(margin: int, size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8)
    expected = np.pad(images.numpy(), ((0, 0), *[(margin, margin)] * 2, (0, 0)), mode="reflect")
    np.testing.assert_array_equal(mirror_border(images, margin).numpy(), expected)


def test_positions_lie_where_the_cut_starts_less_the_padding() -> None:
    assert source_positions(torch.tensor([0, 3]), 4, 2).tolist() == [[-2, -1, 0, 1], [1, 2, 3, 4]]


def test_pixels_are_gathered_from_the_pictures_that_are_named() -> None:
    source = torch.arange(3 * 2 * 2).reshape(3, 2, 2)
    rows, columns = torch.tensor([[1, -1], [0, 1]]), torch.tensor([[0, 1], [2, 1]])
    found = gather_pixels(source, torch.tensor([2, 0]), rows, columns, "zero")
    assert found.tolist() == [[[10, 11], [0, 0]], [[0, 1], [0, 3]]]


# Flip


def test_a_flip_mirrors_left_to_right_only_what_was_drawn() -> None:
    flipped = flip(picture().repeat(2, 1, 1, 1), torch.tensor([1, 0], dtype=torch.int32))
    assert reds(flipped[:1]) == [row[::-1] for row in GREY]
    assert torch.equal(flipped[1:], picture())


def test_a_picture_flipped_twice_is_itself() -> None:
    images = random_pictures(3, 4, 5)
    drawn = torch.ones(3, dtype=torch.int32)
    assert not torch.equal(flip(images, drawn), images)
    assert torch.equal(flip(flip(images, drawn), drawn), images)


# Cutout


def test_an_odd_square_lies_around_its_centre() -> None:
    covered = cutout(picture(), torch.tensor([[1, 2]]), 3, (7, 8, 9))
    assert reds(covered) == [
        [11, 7, 7, 7],
        [21, 7, 7, 7],
        [31, 7, 7, 7],
        [41, 42, 43, 44],
    ]
    assert covered[0, 0, 1].tolist() == [7, 8, 9]
    assert covered[0, 3, 3].tolist() == [44, 144, 244]


def test_an_even_square_reaches_one_pixel_further_up_and_left() -> None:
    assert reds(cutout(picture(), torch.tensor([[2, 1]]), 2, (7, 7, 7))) == [
        [11, 12, 13, 14],
        [7, 7, 23, 24],
        [7, 7, 33, 34],
        [41, 42, 43, 44],
    ]


def test_a_square_may_hang_over_the_edge() -> None:
    assert reds(cutout(picture(), torch.tensor([[0, 3]]), 4, (7, 7, 7))) == [
        [11, 7, 7, 7],
        [21, 7, 7, 7],
        [31, 32, 33, 34],
        [41, 42, 43, 44],
    ]


def test_a_square_larger_than_the_picture_covers_all_of_it() -> None:
    covered = cutout(picture(), torch.tensor([[3, 0]]), 16, (1, 2, 3))
    assert covered.tolist() == [[[[1, 2, 3]] * 4] * 4]


def test_every_picture_has_a_square_of_its_own_and_the_source_stays() -> None:
    images = picture().repeat(2, 1, 1, 1)
    covered = cutout(images, torch.tensor([[0, 0], [3, 3]]), 1, (0, 0, 0))
    assert [(int(one[0, 0, 0]), int(one[3, 3, 0])) for one in covered] == [(0, 44), (11, 0)]
    assert torch.equal(images[1:], picture())


# Normalise


def test_a_picture_is_shifted_and_scaled_channel_by_channel() -> None:
    images = torch.tensor([[[[10, 20, 30], [110, 120, 130]]]], dtype=torch.uint8)
    normal = normalize(images, (10.0, 20.0, 80.0), (50.0, 100.0, 25.0))
    assert normal.shape == (1, 3, 1, 2)
    assert normal.dtype == torch.float32
    assert normal[0].tolist() == [[[0.0, 2.0]], [[0.0, 1.0]], [[-2.0, 2.0]]]


def test_the_own_mean_and_deviation_make_mean_0_and_deviation_1() -> None:
    images = random_pictures(10, 6, 6)
    pixels = images.reshape(-1, 3).double()
    mean, std = pixels.mean(0).tolist(), pixels.std(0, correction=0).tolist()
    normal = normalize(images, tuple(mean), tuple(std))
    assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-6)
    assert torch.allclose(normal.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-6)


# All of it


def transform(raw: bool = False) -> Transform:
    augment = (Crop(padding=1), Flip(), Cutout(size=1))
    return Transform(augment, mean=(7.4, 8.6, 9.5), std=(1.0, 2.0, 4.0), raw=raw)


def draws(corner: tuple[int, int], mirrored: int, centre: tuple[int, int]) -> dict[str, Tensor]:
    return {
        "crop": torch.tensor([corner]),
        "flip": torch.tensor([mirrored]),
        "cutout": torch.tensor([centre]),
    }


def test_augmentations_are_done_in_their_order() -> None:
    changed = transform().change(picture(), draws((0, 0), 1, (1, 3)))
    assert reds(changed) == [
        [0, 0, 0, 0],
        [13, 12, 11, 7],
        [23, 22, 21, 0],
        [33, 32, 31, 0],
    ]


def test_the_fill_is_the_mean_in_whole_grey_levels() -> None:
    assert transform().fill == (7, 9, 10)


def test_what_is_covered_is_nearly_zero_when_it_is_normalised() -> None:
    normal = transform().apply(picture(), draws((1, 1), 0, (2, 2)))
    assert normal[0, :, 2, 2].tolist() == pytest.approx([-0.4, 0.2, 0.125])


def test_a_raw_transform_stops_before_the_floats() -> None:
    now = draws((2, 1), 1, (0, 0))
    raw = transform(raw=True).apply(picture(), now)
    assert torch.equal(raw, transform().change(picture(), now).permute(0, 3, 1, 2))


def test_without_augmentations_nothing_moves() -> None:
    plain = Transform((), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert torch.equal(plain.apply(picture(), {}), picture().permute(0, 3, 1, 2).float())


@pytest.mark.parametrize("raw", [True, False])
def test_a_batch_comes_out_in_channels_last_memory(raw: bool) -> None:
    images = transform(raw).apply(picture(), draws((1, 1), 0, (2, 2)))
    assert images.is_contiguous(memory_format=torch.channels_last)
