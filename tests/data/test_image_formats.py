"""Image files of many formats, read as upright RGB; and files that are not images."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from supcon_tf.data.decode import decode
from supcon_tf.data.image_files import read_image
from supcon_tf.data.image_formats import decoder_of, read_encoded
from supcon_tf.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (17, 23, 3)).astype(np.uint8)
RGB = Image.fromarray(NOISE)
RGBA = Image.fromarray(np.concatenate([NOISE, NOISE[..., :1]], axis=2))
ORIENTATION = 0x0112


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    made = Image.Exif()
    made[ORIENTATION] = orientation
    return made


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".tif", encoded(RGB, "TIFF")),
        (".TIFF", encoded(RGB, "TIFF", compression="tiff_lzw")),
        (".tif", encoded(RGBA, "TIFF")),
        (".ppm", encoded(RGB, "PPM")),
        (".tga", encoded(RGB, "TGA")),
        (".tga", encoded(RGB, "TGA", compression="tga_rle")),
        (".bmp", encoded(RGB, "BMP")),
        (".bmp", encoded(RGBA, "BMP")),
        (".webp", encoded(RGB, "WEBP", lossless=True)),
        (".webp", encoded(RGBA, "WEBP", lossless=True, exact=True)),
        (".webp", encoded(RGB, "WEBP", lossless=True, save_all=True, append_images=[RGBA])),
        (".jp2", encoded(RGB, "JPEG2000")),
        (".png", encoded(RGB, "PNG")),
        ("", encoded(RGB, "PNG")),
        # A wrong suffix.
        (".jpg", encoded(RGB, "TIFF")),
    ],
)
def test_lossless_formats_keep_their_pixels(suffix, data, tmp_path):
    file = tmp_path / f"image{suffix}"
    file.write_bytes(data)
    np.testing.assert_array_equal(read_image(file), NOISE)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize(("suffix", "kind"), [(".bmp", "BMP"), (".tif", "TIFF"), (".png", "PNG")])
def test_grey_and_palette_images_become_rgb(mode, suffix, kind, tmp_path):
    image = RGB.quantize(16) if mode == "P" else RGB.convert(mode)
    image.save(tmp_path / f"image{suffix}", kind)
    np.testing.assert_array_equal(read_image(tmp_path / f"image{suffix}"), image.convert("RGB"))


@pytest.mark.parametrize("suffix", [".tif", ".pgm", ".png"])
def test_16_bits_become_8(suffix, tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (5, 7)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"image{suffix}")
    expected = np.repeat((deep / 257)[..., None], 3, axis=2)
    assert np.abs(read_image(tmp_path / f"image{suffix}") - expected).max() <= 1


@pytest.mark.parametrize(("suffix", "options"), [(".tif", {}), (".webp", {"lossless": True})])
@pytest.mark.parametrize("orientation", [3, 6])
def test_images_are_turned_upright(suffix, options, orientation, tmp_path):
    RGB.save(tmp_path / f"image{suffix}", exif=exif(orientation), **options)
    expected = np.rot90(NOISE, {3: 2, 6: 3}[orientation])
    np.testing.assert_array_equal(read_image(tmp_path / f"image{suffix}"), expected)


def test_tensorflow_formats_are_not_converted(tmp_path):
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        data = encoded(RGB, kind)
        assert decoder_of(data[:64]) == "tensorflow"
        (tmp_path / "image").write_bytes(data)
        assert read_encoded(tmp_path / "image") == data


def test_palette_bmp_can_be_decoded_in_the_graph():
    for image in (RGB.quantize(200), RGB.convert("L"), RGB):
        data = tf.constant(encoded(image, "BMP"))
        np.testing.assert_array_equal(decode(data, palettes=True), image.convert("RGB"))
    data = tf.constant(encoded(RGB, "JPEG"))
    np.testing.assert_array_equal(decode(data, palettes=True), decode(data))
    run_length_encoded = bytearray(encoded(RGB.quantize(200), "BMP"))
    run_length_encoded[30] = 1
    with pytest.raises(tf.errors.InvalidArgumentError, match="compressed"):
        decode(tf.constant(bytes(run_length_encoded)), palettes=True)


def png_of_size(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(9))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_size(data, place, form):
    changed = bytearray(data)
    changed[place : place + struct.calcsize(form)] = struct.pack(form, 60_000, 60_000)
    return bytes(changed)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bomb.gif", with_size(encoded(RGB, "GIF"), 6, "<HH")),
        ("bomb.png", png_of_size(60_000, 60_000)),
        ("bomb.bmp", with_size(encoded(RGB.quantize(4), "BMP"), 18, "<ii")),
        ("bomb.tga", with_size(encoded(RGB, "TGA"), 12, "<HH")),
        ("bomb.ppm", b"P6\n60000 60000\n255\n" + bytes(99)),
        ("half.tif", encoded(RGB, "TIFF")[:600]),
        ("half.webp", encoded(RGBA, "WEBP")[:80]),
        ("half.jpg", encoded(RGB, "JPEG")[:300]),
        ("float.tif", encoded(Image.fromarray(NOISE[..., 0].astype(np.float32)), "TIFF")),
        ("deep.tif", encoded(Image.fromarray(NOISE[..., 0].astype(np.int32) << 20), "TIFF")),
        ("integers.tif", encoded(Image.fromarray(NOISE[..., 0].astype(np.int32)), "TIFF")),
        ("text.tga", b"no image"),
        ("text.jpg", b"no image"),
        ("empty.png", b""),
    ],
)
def test_damaged_and_huge_images_are_one_line_errors(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=name) as raised:
        read_image(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_fifos_and_missing_files_are_errors(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UserError, match=r"pipe\.jpg' is not a regular file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(UserError, match=r"cannot read '.*none\.jpg': No such file"):
        read_image(tmp_path / "none.jpg")
