"""Gaussian blur against a float64 loop; frequency and distribution of sigma."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from supcon_tf.data.augment.blur import gaussian_blur, random_blur


def mirrored(index, size):
    index = abs(index)
    return index if index < size else 2 * (size - 1) - index


def loop_blur(image, sigma):
    height, width, _ = image.shape
    radius = min(height, width) // 10 // 2
    offsets = range(-radius, radius + 1)
    weights = {
        (down, right): math.exp(-(down**2 + right**2) / (2 * sigma**2))
        for down in offsets
        for right in offsets
    }
    total = sum(weights.values())
    result = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            for (down, right), weight in weights.items():
                y, x = mirrored(row + down, height), mirrored(column + right, width)
                result[row, column] += weight / total * image[y, x]
    return result


@pytest.mark.parametrize("size", [(41, 44), (60, 42), (20, 20), (19, 30), (1, 1)])
def test_blur_equals_the_float64_loop(size):
    sigmas = np.float32([0.1, 0.8, 2.0])
    images = np.random.default_rng(0).random((3, *size, 3)).astype(np.float32)
    results = gaussian_blur(tf.constant(images), sigma=tf.constant(sigmas))
    for image, sigma, result in zip(images, sigmas, results, strict=True):
        expected = loop_blur(image.astype(np.float64), float(sigma))
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(("side", "taps"), [(19, 1), (20, 3), (32, 3), (96, 9), (224, 23)])
def test_kernel_is_a_tenth_of_the_side_rounded_to_odd(side, taps):
    image = np.zeros((side, side, 3), np.float32)
    image[side // 2, side // 2] = 1.0
    blurred = gaussian_blur(tf.constant(image[None]), sigma=tf.constant([50.0])).numpy()
    assert (blurred[0, ..., 0] > 0).sum() == taps**2


def test_sigma_is_uniform_and_half_of_the_images_are_blurred():
    image = np.zeros((41, 41, 3), np.float32)
    image[20, 20] = 1.0
    images = tf.tile(image[None], [1000, 1, 1, 1])
    rows = random_blur(images, seed=tf.range(1000, dtype=tf.int64)).numpy()[:, 20, 20:22, 0]
    changed = rows[:, 0] < 1.0
    # Of two neighbouring taps the outer is exp(-1 / (2 sigma^2)) times the inner; below sigma 0.19
    # that is under 1e-6 and the blurred image equals the image in float32.
    sigmas = np.sqrt(-0.5 / np.log(rows[changed, 1] / rows[changed, 0]))
    visible = sigmas[sigmas > 0.25]
    assert stats.kstest(visible, stats.uniform(0.25, 1.75).cdf).pvalue > 1e-3
    # 0.5 * 1.75 / 1.9; standard deviation of the share 0.016.
    assert abs(len(visible) / 1000 - 0.4605) < 0.06


def test_random_blur_stays_in_the_range_of_the_image():
    seeds = tf.range(50, dtype=tf.int64)
    result = random_blur(tf.ones([50, 64, 64, 3]), seed=seeds, probability=1.0).numpy()
    assert result.max() <= 1.0
    np.testing.assert_allclose(result, 1.0, atol=1e-6)


def test_static_shapes_give_the_same_images():
    images = np.random.default_rng(0).random((40, 48, 40, 3)).astype(np.float32)
    seeds = tf.range(40, dtype=tf.int64)
    expected = random_blur(images, seed=seeds).numpy()
    result = random_blur(images, seed=seeds, static_shapes=True).numpy()
    np.testing.assert_allclose(result, expected, atol=1e-6)
    # Blurred and sharp images both occur: Binomial(40, 1/2), standard deviation 3.2.
    unchanged = np.all(expected == images, axis=(1, 2, 3)).sum()
    assert 7 <= unchanged <= 33
