"""Affine operations against Pillow's nearest-neighbour transform, and Cutout's hole."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from supcon_tf.data.augment import geometry

FILL = (128, 128, 128)
RNG = np.random.default_rng(0)
# Noise makes source pixels distinct; the sizes are square, wide, odd and tiny.
IMAGES = [
    RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
    for height, width in ((224, 224), (32, 32), (61, 97), (2, 3), (1, 1))
]


def assert_equals_pillow(operation, pillow, amounts):
    """Eagerly, and traced once for all sizes.

    Both implementations round coefficients to 1/65536, this package from float32 and Pillow from
    float64, so up to one pixel in a thousand may come from a neighbouring position.
    """
    compiled = tf.function(
        operation,
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.float32)],
    )
    for amount, image in itertools.product(amounts, IMAGES):
        expected = np.asarray(pillow(Image.fromarray(image), amount))
        result = operation(tf.constant(image), tf.constant(amount)).numpy()
        assert np.mean(np.any(result != expected, axis=-1)) <= 0.001
        np.testing.assert_array_equal(compiled(tf.constant(image), tf.constant(amount)), result)


def test_rotation_equals_pillow():
    assert_equals_pillow(
        lambda image, degrees: geometry.rotate(image, degrees=degrees),
        lambda image, degrees: image.rotate(degrees, fillcolor=FILL),
        [-30.0, -17.0, 0.0, 3.3, 24.0],
    )


@pytest.mark.parametrize(
    ("operation", "coefficients", "amounts"),
    [
        (
            lambda image, amount: geometry.shear_x(image, factor=amount),
            lambda amount: (1, amount, 0, 0, 1, 0),
            [-0.3, -0.09, 0.0, 0.12],
        ),
        (
            lambda image, amount: geometry.shear_y(image, factor=amount),
            lambda amount: (1, 0, 0, amount, 1, 0),
            [-0.3, -0.09, 0.0, 0.12],
        ),
        (
            lambda image, amount: geometry.translate_x(image, pixels=amount),
            lambda amount: (1, 0, amount, 0, 1, 0),
            [-300.0, -20.5, 0.0, 3.7],
        ),
        (
            lambda image, amount: geometry.translate_y(image, pixels=amount),
            lambda amount: (1, 0, 0, 0, 1, amount),
            [-300.0, -20.5, 0.0, 3.7],
        ),
    ],
    ids=["shear_x", "shear_y", "translate_x", "translate_y"],
)
def test_shears_and_translations_equal_pillow(operation, coefficients, amounts):
    def pillow(image, amount):
        transform = Image.Transform.AFFINE
        return image.transform(image.size, transform, coefficients(amount), fillcolor=FILL)

    assert_equals_pillow(operation, pillow, amounts)


def test_translation_by_the_whole_side_leaves_only_fill():
    image = tf.constant(IMAGES[1])
    assert np.all(geometry.translate_y(image, pixels=tf.constant(32.0)) == 128)
    assert not np.all(geometry.translate_y(image, pixels=tf.constant(31.0)) == 128)


@pytest.mark.parametrize("half_side", [0, 1, 5, 40])
def test_cutout_fills_one_square_clipped_at_the_border(half_side):
    image = tf.zeros([24, 30, 3], tf.uint8)
    for number in range(20):
        hole = geometry.cutout(image, half_side=tf.constant(half_side), seed=number)
        hole = hole.numpy() == 128
        assert np.all(hole == hole[..., :1])
        rows, columns = hole[..., 0].any(axis=1), hole[..., 0].any(axis=0)
        np.testing.assert_array_equal(hole[..., 0], rows[:, None] & columns)
        assert half_side <= rows.sum() <= 2 * half_side or rows.all()
        assert half_side <= columns.sum() <= 2 * half_side or columns.all()


def test_cutout_centre_is_uniform():
    image = tf.zeros([4, 5, 3], tf.uint8)
    holes = tf.data.Dataset.range(1000).map(
        lambda number: geometry.cutout(image, half_side=tf.constant(1), seed=number)
    )
    counts = np.zeros([4, 5])
    for hole in holes.as_numpy_iterator():
        # The centre of a 2x2 hole is its last row and column.
        rows, columns = np.nonzero(hole[..., 0])
        counts[rows.max(), columns.max()] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
