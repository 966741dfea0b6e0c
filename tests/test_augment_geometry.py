"""Affine operations against Pillow's nearest-neighbour transform, and the hole of Cutout."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from supcon_tf.data.augment import geometry

FILL = (128, 128, 128)
RNG = np.random.default_rng(0)
# Noise tells every source pixel apart; the sides cover square, wide, odd and tiny images.
IMAGES = [
    RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
    for height, width in ((224, 224), (32, 32), (61, 97), (2, 3), (1, 1))
]


def assert_equals_pillow(operation, pillow, share=0.001):
    """Both round coefficients to 1/65536; where the last bit differs a pixel may move by one."""
    compiled = tf.function(operation)
    for image in IMAGES:
        expected = np.asarray(pillow(Image.fromarray(image)))
        result = operation(tf.constant(image)).numpy()
        assert np.mean(np.any(result != expected, axis=-1)) <= share
        np.testing.assert_array_equal(compiled(tf.constant(image)), result)


@pytest.mark.parametrize("degrees", [-30.0, -17.0, 0.0, 3.3, 12.0, 24.0, 30.0])
def test_rotation_equals_pillow(degrees):
    assert_equals_pillow(
        lambda image: geometry.rotate(image, degrees=tf.constant(degrees)),
        lambda image: image.rotate(degrees, fillcolor=FILL),
    )


@pytest.mark.parametrize("amount", [-0.3, -0.09, 0.0, 0.12, 0.3])
def test_shear_equals_pillow(amount):
    assert_equals_pillow(
        lambda image: geometry.shear_x(image, factor=tf.constant(amount)),
        lambda image: image.transform(
            image.size, Image.Transform.AFFINE, (1, amount, 0, 0, 1, 0), fillcolor=FILL
        ),
    )
    assert_equals_pillow(
        lambda image: geometry.shear_y(image, factor=tf.constant(amount)),
        lambda image: image.transform(
            image.size, Image.Transform.AFFINE, (1, 0, 0, amount, 1, 0), fillcolor=FILL
        ),
    )


@pytest.mark.parametrize("pixels", [-300.0, -20.5, -1.0, 0.0, 3.7, 100.0])
def test_translation_equals_pillow(pixels):
    assert_equals_pillow(
        lambda image: geometry.translate_x(image, pixels=tf.constant(pixels)),
        lambda image: image.transform(
            image.size, Image.Transform.AFFINE, (1, 0, pixels, 0, 1, 0), fillcolor=FILL
        ),
    )
    assert_equals_pillow(
        lambda image: geometry.translate_y(image, pixels=tf.constant(pixels)),
        lambda image: image.transform(
            image.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, pixels), fillcolor=FILL
        ),
    )


def test_translation_by_a_whole_side_leaves_only_fill():
    image = tf.constant(IMAGES[1])
    assert np.all(geometry.translate_y(image, pixels=tf.constant(32.0)) == 128)
    assert not np.all(geometry.translate_y(image, pixels=tf.constant(31.0)) == 128)


@pytest.mark.parametrize("half_side", [0, 1, 5, 40])
def test_cutout_fills_one_square_that_the_border_cuts(half_side):
    image = tf.zeros([24, 30, 3], tf.uint8)
    for number in range(20):
        hole = geometry.cutout(image, half_side=tf.constant(half_side), seed=[number, 0])
        hole = hole.numpy() == 128
        assert np.all(hole == hole[..., :1])
        rows, columns = hole[..., 0].any(axis=1), hole[..., 0].any(axis=0)
        np.testing.assert_array_equal(hole[..., 0], rows[:, None] & columns)
        assert half_side <= rows.sum() <= 2 * half_side or rows.all()
        assert half_side <= columns.sum() <= 2 * half_side or columns.all()


def test_cutout_is_centred_on_every_pixel_alike():
    image = tf.zeros([4, 5, 3], tf.uint8)
    cut = tf.function(lambda seed: geometry.cutout(image, half_side=tf.constant(1), seed=seed))
    # The last row and column of a hole of 2x2 stand at its centre.
    counts = np.zeros([4, 5])
    for number in range(1000):
        rows, columns = np.nonzero(cut(tf.constant([number, 1])).numpy()[..., 0])
        counts[rows.max(), columns.max()] += 1
    # Binomial(1000, 1/20): mean 50, standard deviation 6.9.
    assert counts.min() > 50 - 4 * 6.9
    assert counts.max() < 50 + 4 * 6.9
