"""Small sets of pictures by class, made up for a test."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def make_pictures(train: int, test: int, size: int = 16) -> dict[str, bytes]:
    """Name and content of PNG pictures in ten classes of noisy colours, each unlike all others.

    The noise is so strong that a small network does not learn to tell all classes apart.
    """
    generator = np.random.default_rng(5)
    colours = generator.integers(60, 120, (10, 3))
    files = {}
    for split, count in (("train", train), ("test", test)):
        noise = generator.integers(-60, 61, (count, size, size, 3))
        tint = generator.integers(-25, 26, (count, 1, 1, 3))
        for index, change in enumerate(noise + tint):
            pixels = (colours[index % 10] + change).clip(0, 255).astype(np.uint8)
            files[f"{split}/{index % 10}/{index:05d}.png"] = encode(pixels)
    return files


def encode(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W, 3) uint8 pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root
