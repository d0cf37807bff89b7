"""The generated data set: ten shapes that a network has to learn, wherever they lie.

Every picture shows one shape at a random place, size and angle on a textured ground, partly
hidden by a bar or a blob, under noise. Colours and textures are drawn alike for all classes, so
only the outline tells them apart: a linear model hardly can, a small convolutional network
learns to within a few epochs. It needs no file and no network.

Outlines are signed distances (negative inside, in units where a shape's radius is 1; Quilez,
"2D distance functions"), so an edge is smoothed by reading its distance in pixels. Only exactly
rounded operations touch a pixel, so the pictures are the same on every processor.

Shapes: B is the pictures of a block, all (B, 32, 32) float32 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasttrain.data.randomness import random_integers, random_words
from fasttrain.data.store import Content, Progress, Split, content_key, silent

Floats = NDArray[np.floating]
Outline = Callable[[Floats, Floats], Floats]

SIZE = 32

_VERSION = 1  # part of the key: raise it when the same arguments give other pictures
_BLOCK = 500  # pictures drawn at once, from streams of their own
_NOISE = 0.07  # standard deviation of the noise; black is 0, white 1


def _disc(x: Floats, y: Floats) -> Floats:
    return np.sqrt(x * x + y * y) - 0.9


def _ring(x: Floats, y: Floats) -> Floats:
    return np.abs(np.sqrt(x * x + y * y) - 0.72) - 0.22


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - 0.75


def _half_planes(x: Floats, y: Floats, count: int) -> Floats:
    """(count, B, 32, 32): how far a point lies along each of `count` evenly spread directions."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([x * np.float32(np.sin(a)) - y * np.float32(np.cos(a)) for a in angles])


def _triangle(x: Floats, y: Floats) -> Floats:
    return np.asarray(_half_planes(x, y, 3).max(axis=0) - 0.55)


def _pentagon(x: Floats, y: Floats) -> Floats:
    return np.asarray(_half_planes(x, y, 5).max(axis=0) - 0.8)


def _star(x: Floats, y: Floats) -> Floats:
    # A five-pointed star is where at least four of its five sides' half-planes overlap.
    return np.asarray(np.sort(_half_planes(x, y, 5), axis=0)[-2] - 0.36)


def _cross(x: Floats, y: Floats) -> Floats:
    across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    return np.maximum(across - 0.28, along - 0.95)


def _crescent(x: Floats, y: Floats) -> Floats:
    bite = np.sqrt((x - 0.5) ** 2 + y * y) - 0.75
    return np.maximum(np.sqrt(x * x + y * y) - 0.95, -bite)


def _heart(x: Floats, y: Floats) -> Floats:
    # A square on its corner, with half a disc on each of its two upper sides.
    side = 0.52
    x, y = np.abs(x) * 0.5**0.5, (y + 0.1) * 0.5**0.5
    right, left = x - y, -x - y
    square = np.maximum(np.maximum(np.abs(right), np.abs(left)) - side, -side - right)
    lobe = np.sqrt((right - side) ** 2 + left * left) - side
    return np.minimum(square, lobe)


def _drop(x: Floats, y: Floats) -> Floats:
    # A disc, and the two tangents that meet above it.
    radius, sine, cosine = 0.56, 0.4, 0.84**0.5
    x, y = np.abs(x), 0.4 - y
    disc = np.sqrt(x * x + y * y) - radius
    tangents = np.maximum(x * cosine + y * sine - radius, radius * sine - y)
    return np.asarray(np.minimum(disc, tangents))


_OUTLINES: dict[str, Outline] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "pentagon": _pentagon,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
    "drop": _drop,
}

CLASSES = tuple(_OUTLINES)


@dataclass(frozen=True)
class _Dice:
    """Random numbers for one block of pictures; equal names give equal numbers."""

    seed: int
    block: int

    def words(self, name: str, count: int) -> NDArray[np.uint64]:
        return random_words(self.seed, f"shapes {name}", self.block, count)

    def uniform(self, name: str, low: float, high: float, *shape: int) -> Floats:
        """(B, *shape) numbers in [low, high); without a shape (B, 1, 1), one for each picture."""
        shape = (_BLOCK, *shape) if shape else (_BLOCK, 1, 1)
        words = self.words(name, int(np.prod(shape))) >> np.uint64(40)
        unit = words.astype(np.float32) * 2**-24
        return (low + unit * (high - low)).reshape(shape)

    def kinds(self, name: str, count: int) -> NDArray[np.int32]:
        """(B, 1, 1) whole numbers in [0, count)."""
        return random_integers(self.words(name, _BLOCK), count)[:, None, None]

    def noise(self, name: str) -> Floats:
        """(B, 32, 32, 3) bell-shaped numbers, mean 0, deviation 1: sums of four bytes."""
        count = _BLOCK * SIZE * SIZE * 3
        words = self.words(name, -(-count // 2)).astype("<u8")
        sums = words.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int32)[:count]
        mean, deviation = 4 * 127.5, (4 * (256**2 - 1) / 12) ** 0.5
        return np.reshape((sums.astype(np.float32) - mean) / deviation, (_BLOCK, SIZE, SIZE, 3))


def _turned(dice: _Dice, name: str, shift: float) -> tuple[Floats, Floats]:
    """Pixel coordinates as seen from a place within `shift` pixels of the centre, turned."""
    angle = dice.uniform(f"{name} angle", 0, 2 * np.pi).astype(np.float64)
    cosine, sine = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    line = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    x = line[None, None, :] - dice.uniform(f"{name} x", -shift, shift)
    y = line[None, :, None] - dice.uniform(f"{name} y", -shift, shift)
    return x * cosine + y * sine, y * cosine - x * sine


def _wave(x: Floats) -> Floats:
    """A triangle wave of period 1 between 0 and 1: stripes with soft edges."""
    return np.asarray(np.abs(x - np.floor(x) - 0.5) * 2)


def _texture(dice: _Dice, name: str, base: Floats) -> Floats:
    """(B, 32, 32, 3): stripes, checks, a slope or a mosaic between `base` and a colour near it."""
    x, y = _turned(dice, name, SIZE)
    period = dice.uniform(f"{name} period", 5, 12)
    kinds = dice.kinds(f"{name} kind", 4)
    tiles = dice.uniform(f"{name} tiles", 0, 1, SIZE // 4, SIZE // 4).repeat(4, 1).repeat(4, 2)
    across, along = _wave(x / period), _wave(y / period)
    checks = np.abs(np.round(across) - np.round(along))
    mixed = np.choose(kinds, [across, checks, _wave(x / (4 * SIZE)), tiles])
    other = base + dice.uniform(f"{name} colour", -0.2, 0.2, 1, 1, 3)
    return base + mixed[..., None] * (other - base)


def _cover(pixels: Floats) -> Floats:
    """(B, 32, 32, 1): how much of each pixel lies inside, from its distance in pixels."""
    return np.expand_dims(np.clip(0.5 - pixels, 0, 1), -1)


def _shape_cover(dice: _Dice) -> Floats:
    """(B, 32, 32, 1): the shape of class `i % 10` in picture `i`."""
    x, y = _turned(dice, "shape", 3)
    radius = dice.uniform("shape radius", 10, 14)
    x, y = x / radius, y / radius
    distance = np.empty_like(x)
    for label, outline in enumerate(_OUTLINES.values()):
        rows = slice(label, None, len(CLASSES))
        distance[rows] = outline(x[rows], y[rows])
    return _cover(distance * radius)


def _occluder_cover(dice: _Dice) -> Floats:
    """(B, 32, 32, 1): a bar through the picture or a blob in it."""
    x, y = _turned(dice, "occluder", 9)
    half = dice.uniform("occluder width", 1.2, 2.2)
    bar, blob = np.abs(x) - half, np.sqrt(x * x + y * y) - 2 * half
    return _cover(np.where(dice.kinds("occluder kind", 2) == 0, bar, blob))


def _block(seed: int, block: int) -> NDArray[np.uint8]:
    """(B, 32, 32, 3) finished pictures."""
    dice = _Dice(seed, block)
    # The shape is lighter than its ground in every channel, by more than a texture varies. Were
    # it lighter or darker at random, the first epochs would go by before anything is learnt.
    ground = dice.uniform("ground", 0, 0.5, 1, 1, 3)
    surface = ground + dice.uniform("contrast", 0.3, 0.7, 1, 1, 3)
    hiding = dice.uniform("hiding", 0, 1, 1, 1, 3)
    picture = _texture(dice, "ground", ground)
    picture += _shape_cover(dice) * (_texture(dice, "surface", surface) - picture)
    picture += _occluder_cover(dice) * (_texture(dice, "hiding", hiding) - picture)
    picture += dice.noise("noise") * _NOISE
    return np.asarray(np.clip(picture * 255 + 0.5, 0, 255), dtype=np.uint8)


def generate(count: int, seed: int, progress: Progress = silent) -> Split:
    """Draw pictures; the same arguments give the same ones on every machine.

    Picture `i` shows class `i % 10` and does not depend on `count`.

    Returns:
        (count, 32, 32, 3) uint8 pictures and their (count,) labels, positions in `CLASSES`.
    """
    images = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    for start in range(0, count, _BLOCK):
        images[start : start + _BLOCK] = _block(seed, start // _BLOCK)[: count - start]
        progress("drawing shapes", min(start + _BLOCK, count), count)
    return Split(images, np.arange(count, dtype=np.int64) % len(CLASSES))


@dataclass(frozen=True)
class ShapesSource:
    """The generated set as a source of a prepared store."""

    train: int = 10_000
    test: int = 2_000

    def key(self) -> str:
        """A short hash of all that decides the pictures."""
        return content_key("shapes", _VERSION, self)

    def read(self, progress: Progress) -> Content:
        """Draw both splits, each from a seed of its own."""
        train = generate(self.train, seed=0, progress=progress)
        return CLASSES, {"train": train, "test": generate(self.test, seed=1, progress=progress)}
