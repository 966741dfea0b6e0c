"""Levels, signs and sizes of the operations, and selection by index."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data.augment import geometry, operations, tones
from supcon_tf.data.augment.operations import OPERATIONS, Ranges, parameter

RANGES = Ranges(translate=250.0, cutout=100.0, posterize=0)


def photo(height, width):
    image = np.random.default_rng(0).integers(0, 200, (height, width, 3))
    return tf.constant(image, tf.uint8)


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, 3], tf.uint8),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([], tf.int64),
    ]
)
def compiled_apply(image, operation, amount, seed):
    return operations.apply(image, operation=operation, parameter=amount, seed=seed)


def apply(image, name, amount, seed=0):
    index, amount = tf.constant(OPERATIONS.index(name)), tf.constant(amount, tf.float32)
    return compiled_apply(image, index, amount, tf.constant(seed, tf.int64)).numpy()


@pytest.mark.parametrize(
    ("name", "at_0", "at_3", "at_10"),
    [
        ("Rotate", 0, 9, 30),
        ("ShearX", 0, 0.09, 0.3),
        ("ShearY", 0, 0.09, 0.3),
        ("TranslateX", 0, 75, 250),
        ("TranslateY", 0, 75, 250),
        ("Color", 0.1, 0.64, 1.9),
        ("Contrast", 0.1, 0.64, 1.9),
        ("Brightness", 0.1, 0.64, 1.9),
        ("Sharpness", 0.1, 0.64, 1.9),
        ("Posterize", 0, 1, 4),
        ("Solarize", 0, 76, 256),
        ("SolarizeAdd", 0, 33, 110),
        ("Cutout", 0, 30, 100),
        ("Equalize", 0, 0, 0),
    ],
)
def test_levels_match_the_released_code(name, at_0, at_3, at_10):
    for level, expected in ((0, at_0), (3, at_3), (10, at_10)):
        assert parameter(name, level, RANGES) == pytest.approx(expected)


def test_posterize_can_start_from_more_bits():
    bits = [parameter("Posterize", level, Ranges(1.0, posterize=4)) for level in range(11)]
    assert bits == [4, 4, 4, 5, 5, 6, 6, 6, 7, 7, 8]


@pytest.mark.parametrize(
    ("name", "amount", "expected"),
    [
        ("AutoContrast", 0.0, tones.autocontrast),
        ("Equalize", 0.0, tones.equalize),
        ("Invert", 0.0, tones.invert),
        ("Posterize", 2.0, lambda x: tones.posterize(x, bits=tf.constant(2.0))),
        ("Solarize", 90.0, lambda x: tones.solarize(x, threshold=tf.constant(90.0))),
        ("SolarizeAdd", 60.0, lambda x: tones.solarize_add(x, addition=tf.constant(60.0))),
        ("Color", 0.3, lambda x: tones.color(x, factor=tf.constant(0.3))),
        ("Contrast", 0.3, lambda x: tones.contrast(x, factor=tf.constant(0.3))),
        ("Brightness", 0.3, lambda x: tones.brightness(x, factor=tf.constant(0.3))),
        ("Sharpness", 0.3, lambda x: tones.sharpness(x, factor=tf.constant(0.3))),
        ("Identity", 0.3, lambda x: x),
    ],
)
def test_index_selects_the_operation(name, amount, expected):
    image = photo(24, 24)
    np.testing.assert_array_equal(apply(image, name, amount), expected(image))


@pytest.mark.parametrize(
    ("name", "amount", "expected"),
    [
        ("Rotate", 21.0, lambda x, sign: geometry.rotate(x, degrees=sign * 21.0)),
        ("ShearX", 0.2, lambda x, sign: geometry.shear_x(x, factor=sign * 0.2)),
        ("ShearY", 0.2, lambda x, sign: geometry.shear_y(x, factor=sign * 0.2)),
        ("TranslateX", 56.0, lambda x, sign: geometry.translate_x(x, pixels=sign * 6.0)),
        ("TranslateY", 56.0, lambda x, sign: geometry.translate_y(x, pixels=sign * 6.0)),
    ],
)
def test_geometric_operations_have_random_signs(name, amount, expected):
    image = photo(24, 24)  # 24 px: 56 px at 224 px are 6.
    forward, backward = (expected(image, tf.constant(sign)).numpy() for sign in (1.0, -1.0))
    assert np.any(forward != backward)
    forwards = 0
    for number in range(100):
        result = apply(image, name, amount, seed=number)
        forwards += np.array_equal(result, forward)
        assert np.array_equal(result, forward) or np.array_equal(result, backward)
    # Binomial(100, 1/2): standard deviation 5.
    assert 30 <= forwards <= 70


@pytest.mark.parametrize("name", ["TranslateX", "TranslateY"])
@pytest.mark.parametrize("size", [(224, 224), (56, 112)])
def test_translation_scales_with_its_side(name, size):
    image = photo(*size)
    pixels = 75.0 * (size[1] if name == "TranslateX" else size[0]) / 224
    move = geometry.translate_x if name == "TranslateX" else geometry.translate_y
    moved = [move(image, pixels=tf.constant(sign * pixels)).numpy() for sign in (1.0, -1.0)]
    result = apply(image, name, 75.0)
    assert any(np.array_equal(result, expected) for expected in moved)


@pytest.mark.parametrize(("size", "half_side"), [((224, 224), 30), ((112, 150), 15), ((32, 32), 4)])
def test_cutout_scales_with_the_shorter_side(size, half_side):
    expected = geometry.cutout(photo(*size), half_side=tf.constant(half_side), seed=3)
    np.testing.assert_array_equal(apply(photo(*size), "Cutout", 30.0, 3), expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_accepts_one_pixel(name):
    result = apply(photo(1, 1), name, parameter(name, 5, RANGES))
    assert result.shape == (1, 1, 3)
    assert result.dtype == np.uint8
