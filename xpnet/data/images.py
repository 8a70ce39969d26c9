"""Pictures as arrays: a file in any format and mode becomes (C, H, W) bytes of a fixed size."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from xpnet.backends.cpu.threads import get_num_threads
from xpnet.checks import expect_choice, expect_integer, expect_sides
from xpnet.io.files import name_of
from xpnet.trained import FITS

# Formats of photographs, as far as this Pillow reads them. Pillow has others, such as EPS, for
# which it starts a program.
FORMATS = "JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "HEIF"
SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .gif .bmp .webp .tif .tiff .ppm .pgm .pbm .pnm "
                     ".avif .heic .heif".split())
LONGEST_SIDE = 2**14        # rows or columns of a sample
MOST_BYTES = 2**30          # of a file: more than Pillow's limit of pixels takes, at 16 bits
ORIENTATION = 0x0112        # the EXIF tag, and the operations of Pillow that undo its values
UPRIGHT = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
           6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}


class ImageError(ValueError):
    """A file is no image, is damaged, or has too many pixels."""


def read_image(path: str | os.PathLike[str], size: int | tuple[int, int], *, channels: int = 3,
               fit: str = "crop") -> np.ndarray:
    """Read a picture as an image (channels, H, W) uint8, as `image_folder` does.

    Grey, RGB, palette, CMYK and 16-bit pictures are converted. Transparent pixels are put on
    white, the EXIF orientation is applied, and of an animation the first frame counts. The picture
    is resized bilinearly, with each pixel of the result a mean over the area that it covers.

    Args:
        size: H = W, or (H, W).
        channels: 3 for colours, 1 for grey.
        fit: "crop" resizes the picture until it covers H x W and cuts off what is left over on both
            sides; "stretch" changes its proportions.

    Raises:
        ValueError: the file is no image, is damaged, or has more pixels than Pillow allows
            (PIL.Image.MAX_IMAGE_PIXELS).
        OSError: the system cannot read the file.
        ImportError: Pillow is not installed.
    """
    shape, fit = sample_shape("read_image", size, channels, fit)
    pillow("read_image")
    return decode(picture_file(path, "read_image"), shape, fit, "read_image")


class Pictures:
    """Picture files as the samples of a Dataset, read in threads."""

    def __init__(self, paths: Sequence[Path], shape: tuple[int, int, int], fit: str, who: str
                 ) -> None:
        pillow(who)
        self.paths, self.shape, self.fit, self.who = paths, shape, fit, who

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        def image(i: int) -> np.ndarray:
            return decode(self.paths[i], self.shape, self.fit, self.who)

        with ThreadPoolExecutor(get_num_threads()) as pool:
            return np.stack([*pool.map(image, indices.tolist())])


def picture_file(path: Any, who: str) -> Path:
    """The path of a file that exists, perhaps a picture."""
    file = Path(name_of(path, who)).expanduser()
    if not os.path.isfile(file):        # Path.is_file raises for names that are too long
        kind = "is no file" if os.path.exists(file) else "does not exist"
        raise FileNotFoundError(f"{who}: expected a picture. Received: {file}, which {kind}.")
    return file


def sample_shape(who: str, size: Any, channels: Any, fit: Any) -> tuple[tuple[int, int, int], str]:
    """(C, H, W) and fit, checked."""
    sides = expect_sides(who, size, LONGEST_SIDE)
    channels = expect_integer(who, "channels", channels)
    return ((expect_choice(who, "channels", channels, (1, 3)), *sides),
            expect_choice(who, "fit", fit, FITS))


def pillow(who: str) -> ModuleType:
    """PIL.Image with its formats loaded, which is not safe in several threads at once."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f"{who}: expected Pillow, which reads pictures. Received: {error}. "
                          'Remedy: pip install "xpnet[data]"') from error
    Image.init()
    return Image


def decode(path: Path, shape: tuple[int, int, int], fit: str, who: str) -> np.ndarray:
    """The picture as (C, H, W) bytes. Raises ImageError, or OSError of the system."""
    return _read(path, who, lambda image: _converted(image, shape, fit))


def image_pixels(path: Path, channels: int, who: str) -> np.ndarray:
    """The image of a file in its own size, (channels, H, W) bytes. Raises as `decode`."""
    pillow(who)
    return _read(path, who, lambda image: _pixels(_upright(image, channels), channels))


def decode_bytes(content: bytes, shape: tuple[int, int, int], fit: str, who: str, *,
                 most_pixels: int | None = None) -> np.ndarray:
    """Decode the bytes of a file as `decode` does. Raises ImageError if it has more than
    `most_pixels` pixels."""
    pillow(who)
    return _decoded(content, "a file", who, lambda image: _converted(image, shape, fit),
                    most_pixels)


def _read(path: Path, who: str, convert: Callable[[Any], np.ndarray]) -> np.ndarray:
    """What a function makes of the Pillow image of a file."""
    # Read first: for a damaged length, Pillow would let the file allocate up to 4 GiB.
    with open(path, "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
            raise _no_picture(who, path, f"a file of {size} bytes, more than {MOST_BYTES}")
        content = file.read(size)
    return _decoded(content, path, who, convert)


def _decoded(content: bytes, what: object, who: str, convert: Callable[[Any], np.ndarray],
             most_pixels: int | None = None) -> np.ndarray:
    """What a function makes of the Pillow image in these bytes."""
    from PIL import Image
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            most, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
            if most_pixels is not None and pixels > most_pixels:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {most_pixels}")
            if most is not None and pixels > most:
                raise ValueError(f"{image.width} x {image.height} pixels, more than Pillow's limit "
                                 f"of {most}; PIL.Image.MAX_IMAGE_PIXELS raises it")
            return convert(image)
    except MemoryError:
        raise
    except Exception as error:          # Pillow's decoders raise many kinds
        if isinstance(error, OSError) and error.errno is not None:
            raise                       # of the system: no such file, no permission
        reason = ("no picture in a format that Pillow reads here"
                  if isinstance(error, Image.UnidentifiedImageError)
                  else " ".join(str(error).split()) or type(error).__name__)
        raise _no_picture(who, what, reason) from error


def _no_picture(who: str, what: object, reason: str) -> ImageError:
    return ImageError(f"{who}: expected a picture. Received: {what} ({shown_text(reason)}).")


def shown_text(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."


def _converted(image: Any, shape: tuple[int, int, int], fit: str) -> np.ndarray:
    from PIL import Image
    channels, H, W = shape
    # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that is still twice the size of the
    # sample, whichever side is up: photographs of 12 million pixels take a fraction of the time.
    enough = 2 * max(H, W) / min(image.size)
    image.draft(None, tuple(math.ceil(side * enough) for side in image.size))
    image = _upright(image, channels)
    w, h = image.size
    box = 0.0, 0.0, float(w), float(h)
    if fit == "crop":
        scale = max(W / w, H / h)
        left, top = max(0.0, (w - W / scale) / 2), max(0.0, (h - H / scale) / 2)
        box = left, top, w - left, h - top
    return _pixels(image.resize((W, H), Image.Resampling.BILINEAR, box=box), channels)


def _upright(image: Any, channels: int) -> Any:
    """The image in grey or RGB, turned as its EXIF orientation says."""
    from PIL import Image
    image.load()
    orientation = None
    with suppress(Exception):           # a photograph with damaged EXIF is still a photograph
        orientation = UPRIGHT.get(image.getexif().get(ORIENTATION))
    image = _eight_bits(image).convert("L" if channels == 1 else "RGB")
    return image if orientation is None else image.transpose(Image.Transpose[orientation])


def _pixels(image: Any, channels: int) -> np.ndarray:
    """(C, H, W) bytes of a Pillow image in grey or RGB."""
    pixels = np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _eight_bits(image: Any) -> Any:
    """The image with 8 bits for each pixel and channel, without transparency."""
    from PIL import Image
    if image.mode == "F":
        raise ValueError("pixels that are floats, whose range is unknown")
    if image.mode.startswith("I"):      # 16 bits, perhaps kept in 32; Pillow's convert would clip
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("pixels of more than 16 bits, whose range is unknown")
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
