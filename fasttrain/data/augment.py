"""What each augmentation means, in plain batched torch: the oracle every loader is held to.

A picture goes through five stages, always in this order:

1. tone: those of TrivialAugment's operations that are not linear (`tone`);
2. geometry: crop, resized crop, rotation, flips, and what TrivialAugment moves. A recipe that
   moves whole pixels alone moves them exactly. Any other is one affine map for each picture,
   composed in the plan, and one warp: every pixel is interpolated once, and what lies outside the
   stored picture is black;
3. colour: one affine map of the channels for each picture (`colour`);
4. cut-out;
5. normalisation, the only step that leaves grey levels.

Pictures are uint8 between the stages, so what one loader rounds another rounds as well. Loaders
may compute the same thing faster, never differently: whole pixels, cut-out and normalisation agree
to the last bit or nearly; a warp and a colour map each to one grey level, where a value lies so
close to the middle between two that the order of additions decides.

Shapes: B pictures of H x W pixels and 3 channels, (B, H, W, 3), until `normalize`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.config import (
    Augmentation,
    ColorJitter,
    Crop,
    Cutout,
    Flip,
    TrivialAugment,
    VerticalFlip,
)
from fasttrain.data import draws as drawing
from fasttrain.data.colour import matrices, measure, recolor
from fasttrain.data.mixing import inside
from fasttrain.data.tone import tone


@dataclass(frozen=True)
class Transform:
    """All that is done to a picture between the store and the model.

    Attributes:
        augment: The augmentations, in order.
        mean: Mean of each channel of the training set, 0 to 255.
        std: Standard deviation of each channel of the training set, 0 to 255.
        raw: Stop before `normalize` and deliver uint8; for tests and contact sheets.
    """

    augment: tuple[Augmentation, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    raw: bool = False

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean colour in whole grey levels: what a cut-out square is covered with."""
        red, green, blue = (round(value) for value in self.mean)
        return red, green, blue

    @property
    def warps(self) -> bool:
        """Whether pictures are moved by anything but whole pixels."""
        return drawing.needs_warp(self.augment)

    @property
    def margin(self) -> int:
        """How many pixels a picture is mirrored beyond its border before it is warped."""
        return drawing.margin(self.augment)

    @property
    def recolors(self) -> bool:
        """Whether colours are changed, for which the stored pictures have to be measured."""
        return any(isinstance(entry, ColorJitter | TrivialAugment) for entry in self.augment)

    @property
    def tones(self) -> bool:
        """Whether some pictures' tones are changed, before anything else."""
        return any(isinstance(entry, TrivialAugment) for entry in self.augment)

    def apply(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Change (B, H, W, 3) uint8 pictures as drawn; return (B, 3, H, W), channels last."""
        return self.finish(self.change(images, draws))

    def change(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Apply every augmentation; uint8 in, uint8 out, the same shape."""
        moved = self.move(self.tone(images, draws), draws)
        if self.recolors:
            moved = recolor(moved, matrices(draws, measure(images)))
        return self.cover(moved, draws)

    def tone(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The changes of tone; the draws are on the CPU, the pictures anywhere."""
        return tone(images, draws["trivial_augment"]) if self.tones else images

    def move(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The geometry."""
        if self.warps:
            return warp(images, draws["warp"], self.margin)
        for entry in self.augment:
            match entry:
                case Crop():
                    images = crop(images, draws["crop"], entry.padding, entry.mode)
                case Flip():
                    images = flip(images, draws["flip"])
                case VerticalFlip():
                    images = flip(images, draws["vertical_flip"], axis=1)
        return images

    def cover(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The cut-out."""
        for entry in self.augment:
            if isinstance(entry, Cutout):
                images = cutout(images, draws["cutout"], entry.size, self.fill)
        return images

    def finish(self, images: Tensor) -> Tensor:
        """Normalise unless `raw`; (B, H, W, 3) uint8 to (B, 3, H, W) in channels-last memory."""
        if self.raw:
            return images.permute(0, 3, 1, 2)
        return normalize(images, self.mean, self.std)


def crop(images: Tensor, corner: Tensor, padding: int, mode: str) -> Tensor:
    """Pad by `padding` pixels on every side, then cut the original size out at `corner`.

    Args:
        images: (B, H, W, 3).
        corner: (B, 2) top and left of the cut in the padded picture, 0 to `2 * padding`.
        padding: Pixels added on every side.
        mode: `zero` pads with black, `reflect` mirrors the picture without its border pixel.
    """
    count, height, width, _ = images.shape
    rows = source_positions(corner[:, 0], height, padding)
    columns = source_positions(corner[:, 1], width, padding)
    return gather_pixels(images, torch.arange(count, device=images.device), rows, columns, mode)


def source_positions(start: Tensor, length: int, padding: int) -> Tensor:
    """Where along one axis each output pixel comes from; (B,) starts to (B, length).

    Positions outside `[0, length)` lie in the padding.
    """
    return start[:, None] + torch.arange(length, device=start.device) - padding


def gather_pixels(
    source: Tensor, pictures: Tensor, rows: Tensor, columns: Tensor, mode: str
) -> Tensor:
    """Pick pixel `(rows[b, i], columns[b, j])` of `source[pictures[b]]` for every b, i, j.

    Args:
        source: (N, H, W) or (N, H, W, C).
        pictures: (B,) positions in `source`.
        rows: (B, I) rows, which may lie outside the picture.
        columns: (B, J) columns, likewise.
        mode: What lies outside: `zero` or `reflect`.
    """
    height, width = source.shape[1:3]
    if mode == "reflect":
        rows, columns = reflect(rows, height), reflect(columns, width)
    inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    pixels = source[pictures[:, None, None], rows[:, :, None], columns[:, None, :]]
    if mode == "reflect":
        return pixels
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    return torch.where(inside.reshape(*inside.shape, *[1] * (pixels.ndim - 3)), pixels, 0)


def mirror_border(images: Tensor, margin: int) -> Tensor:
    """Mirror (B, H, W, 3) pictures by `margin` pixels beyond their borders."""
    if not margin:
        return images
    count, height, width, channels = images.shape
    framed = images.new_empty(count, height + 2 * margin, width + 2 * margin, channels)
    inside = framed[:, margin:-margin]
    inside[:, :, margin:-margin] = images
    # Line by line: to look every pixel up would take a CPU four times as long.
    for at in range(margin):
        inside[:, :, at] = images[:, :, margin - at]
        inside[:, :, ~at] = images[:, :, at - margin - 1]
    for at in range(margin):
        framed[:, at] = framed[:, 2 * margin - at]
        framed[:, ~at] = framed[:, at - 2 * margin - 1]
    return framed


def reflect(positions: Tensor, length: int) -> Tensor:
    """Fold positions up to `length - 1` beyond either end back into `[0, length)`."""
    return (length - 1) - ((length - 1) - positions.abs()).abs()


def flip(images: Tensor, mirrored: Tensor, axis: int = 2) -> Tensor:
    """Mirror left to right, or with axis 1 top to bottom, where the (B,) `mirrored` is not 0."""
    return torch.where(mirrored.bool()[:, None, None, None], images.flip(axis), images)


def warp(images: Tensor, matrix: Tensor, margin: int = 0) -> Tensor:
    """Look every pixel up where `matrix` says, between pixels by linear interpolation.

    Args:
        images: (B, H, W, 3) uint8.
        matrix: (B, 2, 3), an affine map from the new picture into the old (see `affine`), which
            lies in a frame of `margin` pixels.
        margin: Width of that frame, in which the picture is mirrored; beyond it all is black.
    """
    height, width = images.shape[1:3]
    source = images.permute(0, 3, 1, 2).float()
    if margin:
        source = F.pad(source, [margin] * 4, mode="reflect")
    grid = _sampling_grid(matrix, (height, width), (height + 2 * margin, width + 2 * margin))
    pixels = F.grid_sample(source, grid, padding_mode="zeros", align_corners=False)
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _sampling_grid(matrix: Tensor, size: tuple[int, int], source: tuple[int, int]) -> Tensor:
    """Where each pixel's middle comes from; (B, H, W, 2), -1 to 1 over the source."""
    down, across = (torch.arange(length, device=matrix.device) + 0.5 for length in size)
    rows = matrix[:, :, :, None, None]
    x, y = (rows[:, :, 0] * across + rows[:, :, 1] * down[:, None] + rows[:, :, 2]).unbind(1)
    return torch.stack([x * (2 / source[1]) - 1, y * (2 / source[0]) - 1], dim=-1)


def cutout(images: Tensor, centre: Tensor, size: int, fill: tuple[int, int, int]) -> Tensor:
    """Cover a square of `size` pixels, as much of it as lies in the picture, with `fill`.

    An even square reaches `size / 2` pixels up and left of its centre and one less down and right.
    """
    first = centre - size // 2
    hidden = inside(first, first + size, images.shape[1], images.shape[2])
    colour = torch.tensor(fill, dtype=images.dtype, device=images.device)
    return torch.where(hidden[..., None], colour, images)


def normalize(
    images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Shift and scale each channel; (B, H, W, 3) grey levels to (B, 3, H, W) float32.

    The result is in channels-last memory.
    """
    shift = torch.tensor(mean, device=images.device)
    scale = torch.tensor([1 / value for value in std], device=images.device)
    return ((images.float() - shift) * scale).permute(0, 3, 1, 2)
