"""Pixel-value operations against Pillow, bit for bit: both work on integers and truncate alike."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from supcon_tf.data.augment import tones

RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.mgrid[0:61, 0:47]
IMAGES = {
    "noise": RNG.integers(0, 256, (37, 41, 3)),
    "narrow_range": RNG.integers(90, 140, (64, 64, 3)),
    "smooth": np.stack([ROWS * 4, COLUMNS * 5, 255 - ROWS - COLUMNS], -1),
    "two_values": RNG.choice([3, 250], (20, 30, 3)),
    "grey": np.repeat(RNG.integers(0, 256, (32, 32, 1)), 3, axis=2),
    "constant": np.full((5, 4, 3), 77),
    "tiny": RNG.integers(0, 256, (2, 3, 3)),
    "one_pixel": RNG.integers(0, 256, (1, 1, 3)),
}
IMAGES = {name: image.astype(np.uint8) for name, image in IMAGES.items()}
# At an exact 255, ix * (255 / range) may be 254.99...: Pillow's truncation then gives 254.
FACTORS = np.float32([0.0, 0.1, 0.46, 0.73, 1.0, 1.3, 1.9]).tolist()


def assert_equals_pillow(operation, pillow):
    compiled = tf.function(operation)
    for name, image in IMAGES.items():
        expected = np.asarray(pillow(Image.fromarray(image)))
        np.testing.assert_array_equal(operation(tf.constant(image)), expected, err_msg=name)
        np.testing.assert_array_equal(compiled(tf.constant(image)), expected, err_msg=name)


@pytest.mark.parametrize(
    ("operation", "pillow"),
    [
        (tones.invert, ImageOps.invert),
        (tones.autocontrast, ImageOps.autocontrast),
        (tones.equalize, ImageOps.equalize),
    ],
)
def test_operations_without_a_level_equal_pillow(operation, pillow):
    assert_equals_pillow(operation, pillow)


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
def test_posterize_equals_pillow(bits):
    assert_equals_pillow(
        lambda image: tones.posterize(image, bits=tf.constant(float(bits))),
        lambda image: ImageOps.posterize(image, bits),
    )


def test_posterize_to_no_bits_is_black():
    black = tones.posterize(tf.constant(IMAGES["noise"]), bits=tf.constant(0.0))
    assert black.numpy().max() == 0


@pytest.mark.parametrize("threshold", [0, 1, 128, 230, 255, 256])
def test_solarize_equals_pillow_also_at_256_where_nothing_is_inverted(threshold):
    assert_equals_pillow(
        lambda image: tones.solarize(image, threshold=tf.constant(float(threshold))),
        lambda image: ImageOps.solarize(image, threshold),
    )


@pytest.mark.parametrize("addition", [0, 33, 110, 128])
def test_solarize_add_brightens_what_is_below_128(addition):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    expected = [[value + addition if value < 128 else value] * 3 for value in range(256)]
    result = tones.solarize_add(tf.constant(image), addition=tf.constant(float(addition)))
    np.testing.assert_array_equal(result.numpy().reshape(-1, 3), expected)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", ["Color", "Contrast", "Brightness", "Sharpness"])
def test_blends_equal_pillow(name, factor):
    operation = getattr(tones, name.lower())
    assert_equals_pillow(
        lambda image: operation(image, factor=tf.constant(factor)),
        lambda image: getattr(ImageEnhance, name)(image).enhance(factor),
    )
