"""Which library decodes an image file; formats that TensorFlow lacks are converted with Pillow."""

import io
import os
import re
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from supcon_tf.errors import UserError

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".jxl"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".avif"),
)
# Suffixes of files that TensorFlow always decodes, unless the suffix is wrong.
TENSORFLOW_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".jxl")
# TensorFlow's limit for PNG and JPEG, and Pillow's: 537 MB as RGB.
MAX_PIXELS = 2**29 // 3
# A header of this length tells the format.
HEADER_BYTES = 64

_PILLOW_FORMATS = ("BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
_PILLOW_SIGNATURES = (
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51"),
)
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n")
# WebP header flags: animation, Exif (which may hold an orientation), transparency.
_WEBP_FLAGS = 0x02 | 0x08 | 0x10


Decoder = Literal["tensorflow", "pillow"]


def decoder_of(header: bytes) -> Decoder | None:
    """The library that decodes an image with these first bytes; None for no known format.

    TensorFlow cannot decode a WebP with transparency or several frames, and takes the colour
    numbers of a BMP with a palette for grey levels.
    """
    if header.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", *_JPEG_XL)):
        return "tensorflow"
    if header[:4] == b"RIFF" and header[8:12] == b"WEBP":
        chunk, flags = header[12:16], header[20:25].ljust(5, b"\0")
        has_extras = chunk == b"VP8X" and flags[0] & _WEBP_FLAGS
        # The bit of a lossless WebP for transparency.
        has_alpha = chunk == b"VP8L" and flags[4] & 0x10
        return "pillow" if has_extras or has_alpha else "tensorflow"
    if header[:2] == b"BM" and header[6:10] == bytes(4):
        # 24 bits per pixel, uncompressed, and not the header of OS/2.
        is_plain = header[14:15] >= b"\x28" and header[28:34] == b"\x18\0\0\0\0\0"
        return "tensorflow" if is_plain else "pillow"
    if header.startswith(_PILLOW_SIGNATURES) or header[4:12] in (b"ftypavif", b"ftypavis"):
        return "pillow"
    return "pillow" if re.match(rb"P[1-6]\s+[#\d]", header) else None


def read_encoded(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file, converted to BMP where TensorFlow does not decode its format.

    Conversion turns the image upright as its Exif orientation says, leaves transparency out and
    reduces 16 bits to 8, as `decode` does. Only the first frame or page is read.

    Args:
      path: of a regular file.

    Raises:
      UserError: a file that cannot be read, is of no known format, or has too many pixels.
    """
    return read_with_decoder(path)[0]


def read_with_decoder(path: str | os.PathLike[str]) -> tuple[bytes, Decoder]:
    """As `read_encoded`, and which library decodes the file itself."""
    if "\0" in os.fsdecode(path):
        raise UserError(f"a path must not have NUL characters, got {os.fsdecode(path)!r}")
    # Opening a FIFO would wait for a writer.
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{os.fspath(path)!r} is not a regular file")
    try:
        with open(path, "rb") as file:
            encoded = file.read()
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)!r}: {error.strerror}") from None
    decoder = decoder_of(encoded[:HEADER_BYTES])
    is_targa = decoder is None and os.fspath(path).lower().endswith(".tga")
    try:
        if decoder == "pillow" or is_targa:
            return _converted(encoded, ("TGA",) if is_targa else _PILLOW_FORMATS), "pillow"
        # TensorFlow does not limit the size of a GIF.
        if encoded[:3] == b"GIF":
            _check_size(Image.open(io.BytesIO(encoded), formats=("GIF",)))
    except UnidentifiedImageError:
        raise UserError(f"cannot read {os.fspath(path)!r} as an image: it is damaged") from None
    # Pillow raises errors of many types for damaged files, such as struct.error.
    except Exception as error:
        raise UserError(f"cannot read {os.fspath(path)!r} as an image: {error}") from error
    if decoder is None:
        raise UserError(f"{os.fspath(path)!r} is not an image of a known format")
    return encoded, decoder


def _converted(encoded: bytes, formats: tuple[str, ...]) -> bytes:
    with Image.open(io.BytesIO(encoded), formats=formats) as opened:
        _check_size(opened)
        image = ImageOps.exif_transpose(opened)
    if image.mode == "I" and opened.format == "TIFF":
        raise ValueError("it has 32 bits per channel: convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 0xFFFF:
            raise ValueError("it has more than 16 bits per channel: convert it to 8 or 16 bits")
        # Pillow itself would clip at 255.
        image = Image.fromarray((levels >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("it has floating-point pixels: give them as an array, by sources.arrays")
    file = io.BytesIO()
    image.convert("RGB").save(file, "BMP")
    return file.getvalue()


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has {image.width} x {image.height} pixels, over {MAX_PIXELS}")
