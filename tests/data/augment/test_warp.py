"""The thin-plate warp against SciPy's spline and interpolation, and its properties."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates

from supcon_tf.data.augment.warp import random_warp, thin_plate_warp


def smooth_image(height, width):
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 5), np.cos(columns / 7), np.sin((rows + columns) / 9)]
    return ((np.stack(waves, -1) + 1) / 2).astype(np.float32)


def scipy_warp(image, moves):
    height, width, _ = image.shape
    inner = np.array([[i * height / 3, j * width / 3] for i in (1, 2) for j in (1, 2)])
    spline = RBFInterpolator(inner + moves, moves, kernel="thin_plate_spline", degree=1)
    pixels = np.stack(np.mgrid[0:height, 0:width], -1).reshape(-1, 2).astype(float)
    positions = (pixels - spline(pixels)).T
    channels = [
        map_coordinates(image[..., channel].astype(float), positions, order=1, mode="nearest")
        for channel in range(3)
    ]
    return np.stack(channels, -1).reshape(image.shape)


@pytest.mark.parametrize("size", [(48, 48), (40, 71)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_warp_equals_scipy(size, seed):
    image = smooth_image(*size)
    moves = np.random.default_rng(seed).normal(size=(4, 2)) * 3
    result = thin_plate_warp(tf.constant(image), displacements=tf.constant(moves, tf.float32))
    np.testing.assert_allclose(result, scipy_warp(image, moves), atol=1e-3)


def test_zero_displacement_is_identity_and_equal_ones_are_a_shift():
    image = tf.constant(smooth_image(30, 30))
    np.testing.assert_allclose(
        thin_plate_warp(image, displacements=tf.zeros([4, 2])), image, atol=1e-5
    )
    shifted = thin_plate_warp(image, displacements=tf.tile([[2.0, -3.0]], [4, 1]))
    np.testing.assert_allclose(shifted[2:, :-3], image[:-2, 3:], atol=1e-3)
    np.testing.assert_allclose(shifted[0, :-3], image[0, 3:], atol=1e-3)


def test_inner_points_are_displaced():
    image = np.zeros((30, 30, 3), np.float32)
    image[10, 20] = 1.0
    moves = tf.constant([[1, 0], [4, -2], [0, 3], [-2, -1]], tf.float32)
    warped = thin_plate_warp(tf.constant(image), displacements=moves).numpy()
    np.testing.assert_allclose(warped[14, 18], 1.0, atol=1e-3)


def test_displacements_scale_with_the_image():
    # The same seed on an image of twice the side gives the same warp with twice the displacement in pixels.
    seeds = tf.range(6, dtype=tf.int64)
    images = tf.tile(smooth_image(40, 40)[None], [6, 1, 1, 1])
    small = random_warp(images, seed=seeds, probability=1.0)
    doubled = tf.image.resize(images, [80, 80])
    large = tf.image.resize(random_warp(doubled, seed=seeds, probability=1.0), [40, 40])
    differences = np.abs(small - large)[:, 5:-5, 5:-5].mean(axis=(1, 2, 3))
    assert differences.max() < 0.02
    assert np.abs(small - images)[:, 5:-5, 5:-5].mean(axis=(1, 2, 3)).max() > 0.04


def test_tiny_and_constant_images_are_accepted():
    for size in ((1, 1), (2, 3), (9, 9)):
        image = tf.fill([1, *size, 3], 0.7)
        result = random_warp(image, seed=tf.constant([0], tf.int64), probability=1.0)
        np.testing.assert_allclose(result, np.full([1, *size, 3], 0.7), atol=1e-5)


def test_warp_has_its_probability_and_batch_equals_single_images():
    images = np.random.default_rng(0).random((400, 6, 5, 3)).astype(np.float32)
    seeds = tf.range(400, dtype=tf.int64)
    compiled = tf.function(functools.partial(random_warp, probability=0.3), reduce_retracing=True)
    warped = compiled(images, seed=seeds).numpy()
    # Binomial(400, 0.3): standard deviation of the share 0.023. Very small
    # displacements may not change an image.
    assert abs(np.any(warped != images, axis=(1, 2, 3)).mean() - 0.3) < 0.1
    for number in range(12):
        one = slice(number, number + 1)
        alone = random_warp(images[one], seed=seeds[one], probability=0.3)
        np.testing.assert_allclose(alone[0], warped[number], atol=2e-6)
