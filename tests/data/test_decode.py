"""Decoded images against Pillow, and files that are not images."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from supcon_tf.data import views
from supcon_tf.data.decode import decode, exif_orientation, open_image, upright

ORIENTATION = 0x0112
NOISE = np.random.default_rng(0).integers(0, 256, (17, 23, 3)).astype(np.uint8)


def smooth(height, width):
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows / height, columns / width, (rows + columns) / (height + width)]
    return (np.stack(planes, -1) * 255).astype(np.uint8)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(data):
    return decode(tf.constant(data)).numpy()


def with_exif(orientation, endian, others=True):
    exif = Image.Exif()
    exif.endian = endian
    if others:
        exif[0x010F], exif[0x0110] = "Maker", "Model of a camera"
        exif[0x0132] = "2024:01:02 03:04:05"
        exif[0x011A] = 72.0
    if orientation is not None:
        exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright_as_pillow_does(orientation, endian):
    for others in (True, False):
        exif = with_exif(orientation, endian, others)
        data = encoded(Image.fromarray(smooth(17, 23)), "JPEG", quality=95, exif=exif)
        assert (b"MM\x00\x2a" if endian == ">" else b"II\x2a\x00") in data
        assert int(exif_orientation(tf.constant(data))) == orientation
        as_stored = Image.fromarray(tf.io.decode_jpeg(data).numpy())
        as_stored.getexif()[ORIENTATION] = orientation
        result = pixels_of(data)
        np.testing.assert_array_equal(result, ImageOps.exif_transpose(as_stored))
        by_pillow = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        assert result.shape == by_pillow.shape
        # The two decoders round differently.
        assert np.abs(result.astype(int) - by_pillow).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_equals_pillow(orientation):
    image = Image.fromarray(NOISE)
    image.getexif()[ORIENTATION] = orientation
    result = upright(tf.constant(NOISE), tf.constant(orientation))
    np.testing.assert_array_equal(result, ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", [None, 0, 9, 300])
def test_missing_or_unknown_orientation_leaves_the_image_unchanged(orientation):
    for endian in "<>":
        data = encoded(Image.fromarray(NOISE), "JPEG", exif=with_exif(orientation, endian))
        assert int(exif_orientation(tf.constant(data))) == 1
        np.testing.assert_array_equal(pixels_of(data), tf.io.decode_jpeg(data))


def test_bytes_of_an_orientation_outside_exif_are_ignored():
    comment = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    data = encoded(Image.fromarray(NOISE), "JPEG", comment=comment)
    assert comment in data
    assert int(exif_orientation(tf.constant(data))) == 1
    for nothing in (b"", b"\xff\xd8\xff", b"GIF89a", encoded(Image.fromarray(NOISE), "PNG")):
        assert int(exif_orientation(tf.constant(nothing))) == 1


def test_orientation_of_the_thumbnail_is_ignored():
    exif = with_exif(8, "<")
    exif.get_ifd(0x8769)[0x9286] = b"a comment of the user"
    exif._ifds[1] = {ORIENTATION: 3, 0x0103: 6}
    data = encoded(Image.fromarray(NOISE), "JPEG", exif=exif)
    assert int(exif_orientation(tf.constant(data))) == 8


def test_lossless_formats_keep_their_pixels():
    image = Image.fromarray(NOISE)
    for kind in ("PNG", "BMP"):
        np.testing.assert_array_equal(pixels_of(encoded(image, kind)), NOISE)
    palette = image.quantize(64)
    for kind in ("PNG", "GIF"):
        data = encoded(palette, kind)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(pixels_of(data), expected)
    np.testing.assert_array_equal(decode(tf.constant(NOISE)), NOISE)


def test_first_frame_of_an_animation_is_decoded():
    frames = [Image.fromarray(frame).quantize(64) for frame in (NOISE, 255 - NOISE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    first = Image.open(io.BytesIO(data))
    assert first.n_frames == 2
    np.testing.assert_array_equal(pixels_of(data), np.asarray(first.convert("RGB")))


def test_grey_becomes_rgb():
    grey = NOISE[..., 0]
    for kind in ("PNG", "GIF"):
        expected = np.repeat(grey[..., None], 3, axis=2)
        np.testing.assert_array_equal(pixels_of(encoded(Image.fromarray(grey), kind)), expected)
    result = pixels_of(encoded(Image.fromarray(smooth(17, 23)[..., 0]), "JPEG", quality=95))
    assert np.all(result == result[..., :1])
    assert np.abs(result[..., 0].astype(int) - smooth(17, 23)[..., 0]).max() <= 8


def test_alpha_is_left_out():
    alpha = np.random.default_rng(1).integers(0, 256, (17, 23, 1)).astype(np.uint8)
    data = encoded(Image.fromarray(np.concatenate([NOISE, alpha], axis=2)), "PNG")
    np.testing.assert_array_equal(pixels_of(data), NOISE)
    with_grey = np.concatenate([NOISE[..., :1], alpha], axis=2)
    result = pixels_of(encoded(Image.fromarray(with_grey, "LA"), "PNG"))
    np.testing.assert_array_equal(result, np.repeat(NOISE[..., :1], 3, axis=2))


def test_sixteen_bits_become_eight():
    deep = np.random.default_rng(2).integers(0, 65536, (17, 23, 3)).astype(np.uint16)
    result = pixels_of(tf.io.encode_png(deep).numpy()).astype(float)
    assert np.abs(result - deep / 257.0).max() <= 1.0
    grey = pixels_of(encoded(Image.fromarray(deep[..., 0]), "PNG")).astype(float)
    assert np.all(grey == grey[..., :1])
    assert np.abs(grey[..., 0] - deep[..., 0] / 257.0).max() <= 1.0


def test_cmyk_jpeg_has_the_colours_of_pillow():
    image = Image.fromarray(smooth(40, 56)).convert("CMYK")
    data = encoded(image, "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(pixels_of(data) - expected).max() <= 10
    crop = views.random_resized_crop(
        tf.constant(data),
        seed=0,
        size_px=40,
        area_range=(1, 1),
        aspect_range=(1.4, 1.4),
        flip_probability=0.0,
    )
    whole = np.asarray(tf.image.resize(expected.astype(np.float32) / 255, [40, 40]))
    assert np.abs(crop - whole).max() <= 12 / 255


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_images_of_one_pixel_are_decoded(kind):
    data = encoded(Image.fromarray(np.full((1, 1, 3), 100, np.uint8)), kind)
    assert np.abs(pixels_of(data).astype(int) - 100).max() <= 2
    for seed in range(3):
        crop = views.random_resized_crop(tf.constant(data), seed=seed, size_px=5)
        np.testing.assert_allclose(crop, np.full((5, 5, 3), 100 / 255), atol=2 / 255)


BROKEN = {
    "nothing": b"",
    "no_image": b"this is no image at all",
    "begin_of_a_jpeg": encoded(Image.fromarray(NOISE), "JPEG")[:40],
    "half_a_jpeg": encoded(Image.fromarray(NOISE), "JPEG")[:-400],
    "half_a_png": encoded(Image.fromarray(NOISE), "PNG")[:600],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_damaged_images_are_errors_of_tensorflow(data):
    with pytest.raises(tf.errors.OpError):
        decode(tf.constant(data))
    options = {"area_range": (1.0, 1.0), "aspect_range": (1.3, 1.4), "size_px": 16}
    with pytest.raises(tf.errors.OpError):
        views.random_resized_crop(tf.constant(data), seed=0, **options)


def part_read(read, top, left, bottom, right, reduction=1):
    """A window rounded to pixels of the reduced image, and all pixels that were read."""
    window = tf.constant([top, left, bottom - top, right - left])
    pixels, (first_row, first_column) = read(window, tf.constant(reduction))
    # Rounds half up.
    top, left, bottom, right = (
        int(np.floor(number / reduction + 0.5)) for number in (top, left, bottom, right)
    )
    rows = slice(top - first_row, bottom - first_row)
    return pixels[rows, left - first_column : right - first_column].numpy(), pixels


def test_window_is_read_alone_and_at_reduced_sizes():
    data = encoded(Image.fromarray(smooth(64, 96)), "JPEG", quality=95)
    size, reducible, read = open_image(tf.constant(data))
    assert size.numpy().tolist() == [64, 96]
    assert bool(reducible)
    whole = pixels_of(data)
    part, pixels = part_read(read, 8, 17, 40, 68)
    np.testing.assert_array_equal(part, whole[8:40, 17:68])
    # With two more columns on each side.
    assert pixels.shape == (32, 55, 3)
    nearest = {2: (4, 9, 20, 34), 4: (2, 4, 10, 17), 8: (1, 2, 5, 9)}
    for reduction, (top, left, bottom, right) in nearest.items():
        part, _ = part_read(read, 8, 17, 40, 68, reduction)
        blocks = whole.reshape(64 // reduction, reduction, 96 // reduction, reduction, 3)
        expected = blocks.mean(axis=(1, 3))[top:bottom, left:right]
        assert part.shape == expected.shape
        assert np.abs(part - expected).max() <= 4
    for other in (encoded(Image.fromarray(smooth(64, 96)), "PNG"), smooth(64, 96)):
        size, reducible, read = open_image(tf.constant(other))
        assert size.numpy().tolist() == [64, 96]
        assert not bool(reducible)
        part, _ = part_read(read, 8, 17, 40, 68)
        np.testing.assert_array_equal(part, smooth(64, 96)[8:40, 17:68])


def test_a_photo_of_24_megapixels_is_cropped():
    columns = tf.cast(tf.linspace(0.0, 255.0, 6000), tf.uint8)
    photo = tf.tile(columns[None, :, None], [4000, 1, 3])
    data = tf.io.encode_jpeg(photo)
    options = {"size_px": 32, "flip_probability": 0.0, "aspect_range": (1.5, 1.5)}
    whole = views.random_resized_crop(data, seed=0, area_range=(1.0, 1.0), **options)
    expected = (np.arange(32) + 0.5) / 32
    np.testing.assert_allclose(whole[16, :, 0], expected, atol=0.01)
    small = views.random_resized_crop(data, seed=0, area_range=(1e-4, 1e-4), **options).numpy()
    # 60 of 6,000 columns.
    assert 0.0 < small[16, -1, 0] - small[16, 0, 0] < 0.02
