"""Pictures of every mode and format, upright and at the right size; damaged ones are refused."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import tracemalloc
import zlib

import numpy as np
import pytest

from xpnet.data import read_image
from xpnet.data.images import ImageError, decode

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")

RGB = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
GREY = RGB[:, :, 0]


def packed(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def save(tmp_path, content, name="picture.png"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def channels_first(pixels):
    return pixels.transpose(2, 0, 1)


def grey(pixels):
    """ITU-R 601, as Pillow rounds it."""
    r, g, b = (pixels[..., k].astype(int) for k in range(3))
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint8)


# --- modes ----------------------------------------------------------------------------------------

def test_colours_and_grey(tmp_path):
    path = save(tmp_path, packed(Image.fromarray(RGB)))
    np.testing.assert_array_equal(read_image(path, 8), channels_first(RGB), strict=True)
    np.testing.assert_array_equal(read_image(path, 8, channels=1), grey(RGB)[None], strict=True)
    path = save(tmp_path, packed(Image.fromarray(GREY)))
    np.testing.assert_array_equal(read_image(path, 8, channels=1), GREY[None])
    np.testing.assert_array_equal(read_image(path, 8), np.stack([GREY] * 3))
    assert read_image(path, 8).flags.c_contiguous and read_image(path, 8).flags.writeable


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path, kind):
    wide = np.array([[0, 128, 129, 257, 1000, 32768, 65406, 65535]], np.uint16).repeat(8, 0)
    path = save(tmp_path, packed(Image.fromarray(wide), kind), f"picture.{kind.lower()}")
    expected = np.round(wide / 257).astype(np.uint8)
    assert expected[0].tolist() == [0, 0, 1, 1, 4, 128, 254, 255]
    np.testing.assert_array_equal(read_image(path, 8, channels=1), expected[None])
    np.testing.assert_array_equal(read_image(path, 8)[2], expected)


def test_big_endian_16_bits(tmp_path):
    """A PGM is big-endian."""
    wide = np.array([[0, 257, 65535, 25700]] * 4, np.uint16)
    path = save(tmp_path, b"P5 4 4 65535\n" + wide.astype(">u2").tobytes(), "picture.pgm")
    np.testing.assert_array_equal(read_image(path, 4, channels=1), (wide // 257)[None])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_on_white(tmp_path, mode):
    image = Image.fromarray(RGB).convert(mode)
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:, :4] = 255
    image.putalpha(Image.fromarray(alpha))
    x = read_image(save(tmp_path, packed(image)), 8)
    opaque = channels_first(RGB) if mode == "RGBA" else np.stack([grey(RGB)] * 3)
    np.testing.assert_array_equal(x[:, :, :4], opaque[:, :, :4])
    assert (x[:, :, 4:] == 255).all()


def test_palettes_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1, 1, 0])
    x = read_image(save(tmp_path, packed(image)), 2)
    assert x[:, 0, 0].tolist() == [10, 20, 30] and x[:, 0, 1].tolist() == [200, 100, 50]
    x = read_image(save(tmp_path, packed(image, transparency=1)), 2)
    assert x[:, 0, 0].tolist() == [10, 20, 30] and x[:, 0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode, kind", [("1", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"),
                                        ("YCbCr", "JPEG"), ("L", "GIF"), ("RGB", "WEBP"),
                                        ("RGB", "BMP"), ("RGB", "PPM"), ("HSV", "TIFF")])
def test_other_modes_and_formats(tmp_path, mode, kind):
    """A red and a black half come out as they are, within what the format loses."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = [255, 255, 255] if mode in "1L" else [200, 30, 40]
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels).convert(mode) if mode != "HSV" else image
    x = read_image(save(tmp_path, packed(image, kind), f"x.{kind.lower()}"), 16)
    wanted = channels_first(pixels).astype(int)
    inside = np.r_[0:6, 10:16]
    assert np.abs(x[:, :, inside] - wanted[:, :, inside]).max() <= 12


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        content = packed(frames[0], kind, save_all=True, append_images=frames[1:],
                         **({"lossless": True} if kind == "WEBP" else {}))
        x = read_image(save(tmp_path, content, f"x.{kind.lower()}"), 4)
        assert (x == np.array([255, 0, 0])[:, None, None]).all(), kind


# --- upright, and the size ------------------------------------------------------------------------

def rotated(pixels, orientation):
    """What a camera saves so that a viewer that obeys the EXIF orientation shows `pixels`."""
    t = pixels.swapaxes(0, 1)
    return {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: t,
            6: t[::-1], 7: t[::-1, ::-1], 8: t[:, ::-1]}[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations(tmp_path, orientation):
    pixels = np.zeros((6, 4, 3), np.uint8)
    pixels[:2, :, 0], pixels[:, :1, 1] = 250, 250       # a red top and a green left side
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = packed(Image.fromarray(np.ascontiguousarray(rotated(pixels, orientation))), exif=exif)
    x = read_image(save(tmp_path, content), (6, 4))
    np.testing.assert_array_equal(x, channels_first(pixels))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_matter(tmp_path):
    content = packed(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage")
    assert read_image(save(tmp_path, content, "x.jpg"), 8).shape == (3, 8, 8)


def test_crop_and_stretch(tmp_path):
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 200
    path = save(tmp_path, packed(Image.fromarray(wide)))
    assert (read_image(path, 8) == 200).all()                   # the middle
    assert (read_image(path, (8, 8), fit="stretch")[:, :, [0, 7]] < 50).all()
    tall = save(tmp_path, packed(Image.fromarray(wide.swapaxes(0, 1).copy())), "tall.png")
    assert (read_image(tall, 8) == 200).all()
    assert (read_image(tall, (8, 8), fit="stretch")[:, [0, 7]] < 50).all()
    np.testing.assert_array_equal(read_image(path, (8, 16)), channels_first(wide))


def test_each_pixel_is_a_mean_over_the_area_that_it_covers(tmp_path):
    """A checkerboard becomes grey, and not black or white."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    x = read_image(save(tmp_path, packed(Image.fromarray(board))), 8, channels=1)
    assert np.abs(x.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (3, 7), (1, 1)])
def test_every_shape_of_picture(tmp_path, size):
    path = save(tmp_path, packed(Image.new("RGB", size, (9, 8, 7))))
    for fit in ("crop", "stretch"):
        x = read_image(path, (5, 4), fit=fit)
        assert x.shape == (3, 5, 4) and (x == np.array([9, 8, 7])[:, None, None]).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_that_is_decoded_at_a_fraction_of_its_size_is_the_same_picture(
        tmp_path, orientation):
    ramp = np.zeros((400, 640, 3), np.uint8)
    ramp[:, :, 0] = np.linspace(0, 255, 640)
    ramp[:, :, 1] = np.linspace(0, 255, 400)[:, None]
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = read_image(save(tmp_path, packed(Image.fromarray(ramp), "JPEG", quality=95, exif=exif),
                           "x.jpg"), 16)
    full = read_image(save(tmp_path, packed(Image.fromarray(ramp), exif=exif)), 16)
    assert np.abs(jpeg.astype(int) - full.astype(int)).max() <= 4


# --- damaged files --------------------------------------------------------------------------------

def refuse(path, message="expected a picture"):
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path, 8)
    text = str(caught.value)
    assert text.startswith("read_image: expected a picture. Received: ") and str(path) in text
    assert "\n" not in text
    return text


def test_files_that_are_no_pictures(tmp_path):
    for content in (b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n",
                    b"\xff\xd8\xff"):
        refuse(save(tmp_path, content))
    refuse(save(tmp_path, b"text"), "no picture in a format that Pillow reads here")


def test_a_truncated_picture(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF"):
        content = packed(Image.fromarray(pixels), kind)
        for share in (0.1, 0.5, 0.9):
            refuse(save(tmp_path, content[:int(len(content) * share)], f"x.{kind.lower()}"))


@pytest.mark.filterwarnings("ignore")       # Pillow warns of some damages that do no harm
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damaged_bytes_give_a_picture_or_our_error(tmp_path, kind, number):
    rng = np.random.default_rng(2)
    content = packed(Image.fromarray(RGB), kind)
    refused = 0
    tracemalloc.start()
    for _ in range(number(300)):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(0, min(len(damaged), 120))] = rng.integers(0, 256)
        try:
            x = read_image(save(tmp_path, bytes(damaged), f"x.{kind.lower()}"), 8)
            assert x.shape == (3, 8, 8) and x.dtype == np.uint8
        except ImageError as error:
            refused += 1
            assert "\n" not in str(error)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert refused


def png_of(width, height):
    """A PNG that declares this size and has no more than a few bytes."""
    def chunk(kind, content):
        return (struct.pack(">I", len(content)) + kind + content
                + struct.pack(">I", zlib.crc32(kind + content)))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0,
                                                              0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("size", [(10000, 10000), (65000, 65000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs(tmp_path, size):
    refuse(save(tmp_path, png_of(*size)),
           "10000 x 10000 pixels, more than Pillow's limit of 89478485|decompression bomb DOS")


def test_pillows_limit_can_be_set(tmp_path, monkeypatch):
    path = save(tmp_path, packed(Image.fromarray(RGB)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)
    read_image(path, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    read_image(path, 8)


def test_errors_of_the_system_are_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.png, which does not exist."):
        read_image(tmp_path / "nothing.png", 8)
    with pytest.raises(FileNotFoundError, match="which is no file."):
        read_image(tmp_path, 8)
    with pytest.raises(IsADirectoryError if os.name == "posix" else PermissionError):
        decode(tmp_path, (3, 8, 8), "crop", "who")


@pytest.mark.parametrize("arguments, message", [
    ({"size": 0}, "expected size to be a number of pixels from 1 to 16384, or \\(H, W\\). "
                  "Received: size=0."),
    ({"size": (8, 8, 8)}, "expected size"), ({"size": 8.5}, "expected size"),
    ({"size": 2**20}, "expected size"), ({"size": "8"}, "expected size"),
    ({"channels": 4}, "expected channels to be 1 or 3. Received: channels=4."),
    ({"fit": "pad"}, "expected fit to be 'crop' or 'stretch'. Received: fit='pad'."),
    ({"path": 3}, "expected the name of a file"),
])
def test_bad_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=f"read_image: {message}"):
        read_image(**{"path": "x.png", "size": 8} | arguments)


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'read_image: expected Pillow.*pip install "xpnet\[data'):
        read_image("x.png", 8)


def test_threads_read_the_same(tmp_path):
    path = save(tmp_path, packed(Image.fromarray(RGB)))
    found = [None] * 8

    def read(k):
        found[k] = read_image(path, (5, 5))

    threads = [threading.Thread(target=read, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(x, found[0]) for x in found)
