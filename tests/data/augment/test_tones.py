"""Pixel-value operations equal Pillow bit for bit."""

import itertools

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
FACTORS = np.float32([0.0, 0.1, 0.46, 1.0, 1.3, 1.9])


def assert_equals_pillow(operation, pillow, levels):
    """Eagerly, and traced once for all sizes, where arithmetic may be reordered."""
    compiled = tf.function(
        operation,
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.float32)],
    )
    for level, (name, image) in itertools.product(levels, IMAGES.items()):
        expected = np.asarray(pillow(Image.fromarray(image), level))
        for function in (operation, compiled):
            result = function(tf.constant(image), tf.constant(level, tf.float32))
            np.testing.assert_array_equal(result, expected, err_msg=f"{name} at {level}")


@pytest.mark.parametrize("name", ["invert", "autocontrast", "equalize"])
def test_operations_without_a_level_equal_pillow(name):
    assert_equals_pillow(
        lambda image, _: getattr(tones, name)(image),
        lambda image, _: getattr(ImageOps, name)(image),
        [0],
    )


def test_posterize_equals_pillow():
    assert_equals_pillow(
        lambda image, bits: tones.posterize(image, bits=bits), ImageOps.posterize, [1, 2, 4, 8]
    )


def test_posterize_to_zero_bits_is_black():
    black = tones.posterize(tf.constant(IMAGES["noise"]), bits=tf.constant(0.0))
    assert black.numpy().max() == 0


def test_solarize_equals_pillow_also_at_256():
    assert_equals_pillow(
        lambda image, threshold: tones.solarize(image, threshold=threshold),
        ImageOps.solarize,
        [0, 1, 128, 255, 256],
    )


@pytest.mark.parametrize("addition", [0, 33, 110, 128])
def test_solarize_add_brightens_values_below_128(addition):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    expected = [[value + addition if value < 128 else value] * 3 for value in range(256)]
    result = tones.solarize_add(tf.constant(image), addition=tf.constant(float(addition)))
    np.testing.assert_array_equal(result.numpy().reshape(-1, 3), expected)


@pytest.mark.parametrize("name", ["Color", "Contrast", "Brightness", "Sharpness"])
def test_blends_equal_pillow(name):
    assert_equals_pillow(
        lambda image, factor: getattr(tones, name.lower())(image, factor=factor),
        lambda image, factor: getattr(ImageEnhance, name)(image).enhance(float(factor)),
        FACTORS,
    )
