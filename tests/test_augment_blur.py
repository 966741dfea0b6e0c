"""Gaussian blur against a float64 loop, and how often and how much it blurs."""

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
@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_equals_the_float64_loop(size, sigma):
    image = np.random.default_rng(0).random((*size, 3)).astype(np.float32)
    result = gaussian_blur(tf.constant(image), sigma=tf.constant(sigma))
    np.testing.assert_allclose(result, loop_blur(image.astype(np.float64), sigma), atol=1e-6)


@pytest.mark.parametrize(("side", "taps"), [(19, 1), (20, 3), (32, 3), (96, 9), (224, 23)])
def test_kernel_is_a_tenth_of_the_side_made_odd(side, taps):
    image = np.zeros((side, side, 3), np.float32)
    image[side // 2, side // 2] = 1.0
    spread = gaussian_blur(tf.constant(image), sigma=tf.constant(50.0)).numpy()[..., 0] > 0
    assert spread.sum() == taps**2


def test_sigma_is_uniform_from_a_tenth_to_2_and_blur_comes_every_other_time():
    image = np.zeros((41, 41, 3), np.float32)
    image[20, 20] = 1.0
    dataset = tf.data.Dataset.range(1000).map(
        lambda number: random_blur(
            tf.constant(image), seed=tf.stack([tf.cast(number, tf.int32), 5])
        )
    )
    rows = np.array([blurred[20, 20:22, 0] for blurred in dataset.as_numpy_iterator()])
    changed = rows[:, 0] < 1.0
    # Of two neighbouring taps the outer is exp(-1 / (2 sigma^2)) times the inner; below sigma 0.19
    # that is under 1e-6 and the blurred image equals the image in float32.
    sigmas = np.sqrt(-0.5 / np.log(rows[changed, 1] / rows[changed, 0]))
    visible = sigmas[sigmas > 0.25]
    assert stats.kstest(visible, stats.uniform(0.25, 1.75).cdf).pvalue > 1e-3
    # 0.5 * 1.75 / 1.9; standard deviation of the share 0.016.
    assert abs(len(visible) / 1000 - 0.4605) < 0.06


def test_random_blur_stays_within_the_range_of_the_image():
    white = tf.ones([64, 64, 3])
    for seed in range(10):
        result = random_blur(white, seed=[seed, 0], probability=1.0).numpy()
        assert result.max() <= 1.0
        np.testing.assert_allclose(result, 1.0, atol=1e-6)
