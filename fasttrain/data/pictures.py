"""From the bytes of a picture file to RGB pixels, whatever its kind.

Formats are tried from a short list, so that none of the rarer decoders meets unknown bytes.

- 16-bit grey is scaled to 8 bits by 255 / 65535 and rounded; 16-bit colour loses its lower byte.
- What is transparent is laid on white.
- Palettes, CMYK and YCbCr become RGB; colour profiles are not applied.
- A picture that its EXIF data says to turn is turned.
- Of several pictures in a file the first is taken.
- The whole picture is resized, its proportions changed where they differ, by Pillow's bilinear
  filter, which averages over all that a smaller picture's pixel covers (it is antialiased). One
  that has the size already is not touched.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fasttrain.errors import UserError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP", "TIFF")
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".webp", ".tif",
    ".tiff",
)  # fmt: skip

# 256 MiB of RGB: Pillow's own limit, above which it warns of a decompression bomb.
MOST_PIXELS = 89_478_485

_WHITE = 255
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(content: bytes, name: str, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Decode a picture to RGB; the module says how its kinds are brought to that.

    Threads may call it at the same time, and decode in parallel.

    Args:
        content: The file's bytes.
        name: What an error calls the picture.
        size: Height and width to bring it to; None: its own.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: it is no picture, damaged, cut short, of a kind without a known range of values,
            or has more than `MOST_PIXELS` pixels, which is found before they are unpacked.
    """
    if not content:
        raise UserError(f"{name}: the file is empty; replace or remove it")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            _check_pixels(name, picture.size)
            picture.load()
            rgb = _upright(picture, _to_rgb(name, picture))
        if size is not None and rgb.size != (size[1], size[0]):
            rgb = rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(rgb)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name}: not a picture ({', '.join(FORMATS)}); replace or remove it"
        ) from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: has more than {MOST_PIXELS:,} pixels; make it smaller") from error
    except Exception as error:  # bytes made to do harm raise almost anything in the decoders
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: damaged or cut short ({reason}); replace or remove it") from error


def _check_pixels(name: str, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{name}: {width} x {height} pixels are more than {MOST_PIXELS:,}; make it smaller"
        )


def _to_rgb(name: str, picture: Image.Image) -> Image.Image:
    """Bring any mode to RGB."""
    deep = picture.mode.startswith("I;16")
    # Pillow says so of 16 bits, too; of 32 bits, as TIFF has them, no one knows the range.
    if deep or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        return _from_16_bits(picture)
    if picture.mode in ("I", "F", "LAB"):
        raise UserError(
            f"{name}: pixels of the kind {picture.mode!r}; save it with 8 bits a channel"
        )
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        paper = Image.new("RGBA", clear.size, (_WHITE, _WHITE, _WHITE, 255))
        return Image.alpha_composite(paper, clear).convert("RGB")
    return picture.convert("RGB")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """Scale grey; the value that a PNG may declare to be transparent becomes white."""
    values = np.asarray(picture).astype(np.int64)
    grey = ((values * 255 + 32767) // 65535).clip(0, 255).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = _WHITE
    return Image.fromarray(grey).convert("RGB")


def _upright(picture: Image.Image, rgb: Image.Image) -> Image.Image:
    """Turn `rgb` as the EXIF data of `picture` says; data that cannot be read says nothing."""
    try:
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # as for the pixels; but viewers show such pictures, too
        turn = None
    return rgb if turn is None else rgb.transpose(turn)
