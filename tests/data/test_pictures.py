"""Pictures of every kind become the RGB pixels that one sees, or are refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.data.pictures import FORMATS, MOST_PIXELS, decode
from fasttrain.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, pixels: bytes, *more: bytes, kind: int = 0, bits: int = 8
) -> bytes:
    """A PNG written by hand: kinds that Pillow reads and does not write, and lies."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(pixels))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *more, rows, chunk(b"IEND", b"")])


def refusal(content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        decode(content, "some/a.png", None)
    line = str(caught.value)
    assert line.startswith("some/a.png: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("JPEG", "GIF")])
def test_a_lossless_picture_keeps_its_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(encode(Image.fromarray(PIXELS), kind, **options), "a", None)
    assert found.dtype == np.uint8
    assert np.array_equal(found, PIXELS)


def test_grey_of_1_and_8_bits_and_palettes() -> None:
    grey = Image.fromarray(GREY)
    bits = grey.point(lambda value: 255 * (value > 127), mode="1")
    palette = Image.fromarray(PIXELS).quantize(24)
    for picture in (grey, bits, palette):
        found = decode(encode(picture), "a", None)
        assert np.array_equal(found, np.asarray(picture.convert("RGB")))
    assert np.array_equal(
        decode(encode(palette, "GIF"), "a", None), np.asarray(palette.convert("RGB"))
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65278, 65406, 65535]], dtype=np.uint16)
    found = decode(encode(Image.fromarray(values), kind), "a", None)
    assert found[..., 0].tolist() == [[0, 0, 1, 1], [128, 254, 254, 255]]
    assert (found == found[..., :1]).all()


def test_the_clear_value_of_16_bit_grey_is_white() -> None:
    values = struct.pack(">4H", 0, 1000, 30000, 65535)
    content = png(4, 1, b"\0" + values, chunk(b"tRNS", struct.pack(">H", 1000)), bits=16)
    assert decode(content, "a", None)[0, :, 0].tolist() == [0, 255, 117, 255]


def test_16_bit_colour_keeps_its_upper_byte() -> None:
    values = struct.pack(">6H", 0x1234, 0xFFFF, 0, 0x80FF, 0x0100, 0x00FF)
    found = decode(png(2, 1, b"\0" + values, kind=2, bits=16), "a", None)
    assert found.tolist() == [[[0x12, 0xFF, 0], [0x80, 1, 0]]]


def test_what_is_transparent_is_laid_on_white() -> None:
    alpha = np.array([[0, 128], [255, 51]], dtype=np.uint8)
    colour = np.full((2, 2, 3), (100, 0, 200), dtype=np.uint8)
    clear = Image.fromarray(np.dstack([colour, alpha]))
    share = alpha[..., None] / 255
    wanted = colour * share + 255 * (1 - share)
    for picture in (clear, clear.convert("LA")):
        found = decode(encode(picture), "a", None)
        grey = np.asarray(picture.convert("RGBA"))[..., :3] * share + 255 * (1 - share)
        assert abs(found - (wanted if picture is clear else grey)).max() <= 1


def test_the_clear_colour_of_a_palette_is_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    found = decode(encode(palette, transparency=0), "a", None)
    assert found.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_cmyk_becomes_rgb() -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        found = decode(encode(ink, kind), "a", None)
        assert abs(found.astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_turned_picture_is_turned_back_once(orientation: int, kind: str) -> None:
    stored = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PIXELS, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = Image.fromarray(np.ascontiguousarray(stored))
    found = decode(encode(picture, kind, exif=exif, **options), "a", None)
    assert np.array_equal(found, PIXELS)


def test_exif_data_that_cannot_be_read_is_passed_over() -> None:
    content = encode(Image.fromarray(PIXELS), exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert np.array_equal(decode(content, "a", None), PIXELS)


def test_the_first_of_several_pictures_is_taken() -> None:
    first, second = Image.new("RGB", (3, 2), (1, 2, 3)), Image.new("RGB", (3, 2), (9, 9, 9))
    content = encode(first, "TIFF", save_all=True, append_images=[second])
    assert (decode(content, "a", None) == [1, 2, 3]).all()


def test_a_picture_of_the_size_is_not_touched_and_others_are_resized() -> None:
    content = encode(Image.fromarray(PIXELS))
    assert np.array_equal(decode(content, "a", (6, 4)), PIXELS)
    assert decode(content, "a", (5, 7)).shape == (5, 7, 3)
    assert decode(content, "a", (60, 1)).shape == (60, 1, 3)


def test_making_a_picture_smaller_averages_all_its_pixels() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    found = decode(encode(Image.fromarray(board.astype(np.uint8))), "a", (8, 8))
    assert abs(found.astype(int) - 127).max() <= 3  # without antialiasing: 0 or 255


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file is empty"),
        (b"no picture at all\n", "not a picture (PNG, JPEG, "),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (encode(Image.new("F", (3, 3)), "TIFF"), "pixels of the kind 'F'; save it with 8 bits"),
        (encode(Image.new("I", (3, 3)), "TIFF"), "pixels of the kind 'I'; save it with 8 bits"),
        (png(12_000, 12_000, b""), "12000 x 12000 pixels are more than 89,478,485; make it"),
        (png(30_000, 30_000, b""), f"has more than {MOST_PIXELS:,} pixels; make it smaller"),
        (png(20_000, 100, b"\0"), "damaged or cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_used_is_named(content: bytes, complaint: str) -> None:
    assert complaint in refusal(content)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_cut_short_anywhere_is_refused(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    whole = encode(Image.fromarray(noise), kind, **options)
    for share in (0.05, 0.5, 0.9):
        refusal(whole[: int(len(whole) * share)])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore")  # Pillow tells what it passes over
def test_flipped_bytes_give_pixels_or_a_refusal_and_nothing_else(kind: str) -> None:
    generator = np.random.default_rng(2)
    whole = bytearray(encode(Image.fromarray(PIXELS), kind))
    for _ in range(300):
        content = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            content[place] = generator.integers(0, 256)
        try:
            assert decode(bytes(content), "some/a.png", (4, 4)).shape == (4, 4, 3)
        except UserError as error:
            assert str(error).startswith("some/a.png: ")


def test_a_wide_picture_of_few_pixels_is_decoded() -> None:
    wide = np.random.default_rng(3).integers(0, 256, (2, 20_000, 3), dtype=np.uint8)
    assert decode(encode(Image.fromarray(wide)), "a", (32, 32)).shape == (32, 32, 3)


def test_threads_decode_the_same() -> None:
    contents = [encode(Image.fromarray(np.roll(PIXELS, shift))) for shift in range(50)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda content: decode(content, "a", (8, 8)), contents)
    for pixels, content in zip(found, contents, strict=True):
        assert np.array_equal(pixels, decode(content, "a", (8, 8)))
