"""Colour jitter against float64 loops, and the statistics of what it draws."""

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from supcon_tf.data.augment.color import (
    JitterDraw,
    color_jitter,
    draw_jitter,
    random_color_jitter,
    random_grey,
)

RNG = np.random.default_rng(0)
IMAGES = [
    RNG.random((6, 5, 3)).astype(np.float32),
    np.repeat(RNG.random((4, 4, 1)), 3, axis=2).astype(np.float32),
    np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1]]], np.float32),
    RNG.random((1, 1, 3)).astype(np.float32),
]
AMOUNTS = {
    "tensorflow": [(0.3, 1.6, 0.4, 0.13), (-0.5, 0.3, 1.7, -0.2), (0.0, 1.0, 1.0, 0.0)],
    "torchvision": [(1.4, 1.6, 0.4, 0.13), (0.5, 0.3, 1.7, -0.2), (1.0, 1.0, 1.0, 0.0)],
}


def grey(pixel):
    return 0.2989 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def in_hsv(pixel, change):
    return colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel)))


def pixelwise(image, change):
    return np.array([[change(pixel) for pixel in row] for row in image])


def loop_jitter(image, order, amounts, formulas):
    brightness, contrast, saturation, hue = amounts
    image = image.astype(np.float64)
    for step in order:
        if step == 0:
            image = image + brightness if formulas == "tensorflow" else image * brightness
        elif step == 1 and formulas == "tensorflow":
            means = [np.mean(image[..., channel]) for channel in range(3)]
            image = pixelwise(image, lambda p, means=means: (p - means) * contrast + means)
        elif step == 1:
            mean = np.mean([grey(pixel) for row in image for pixel in row])
            image = pixelwise(image, lambda p, mean=mean: (p - mean) * contrast + mean)
        elif step == 2 and formulas == "tensorflow":
            image = pixelwise(
                image, lambda p: in_hsv(p, lambda h, s, v: (h, min(s * saturation, 1.0), v))
            )
        elif step == 2:
            image = pixelwise(image, lambda p: (p - grey(p)) * saturation + grey(p))
        else:
            image = pixelwise(image, lambda p: in_hsv(p, lambda h, s, v: ((h + hue) % 1.0, s, v)))
        image = np.clip(image, 0.0, 1.0)
    return image


def draw(order, amounts):
    return JitterDraw(tf.constant(order), *(tf.constant(amount) for amount in amounts))


@pytest.mark.parametrize("formulas", ["tensorflow", "torchvision"])
def test_jitter_equals_the_float64_loop_in_every_order(formulas):
    compiled = tf.function(color_jitter)
    orders = list(itertools.permutations(range(4)))
    for number, (order, image) in enumerate(itertools.product(orders, IMAGES)):
        amounts = AMOUNTS[formulas][number % 3]
        expected = loop_jitter(image, order, amounts, formulas)
        result = compiled(tf.constant(image), draw(order, amounts), jitter=formulas)
        # A tenth of a grey level of 255 is 4e-4; float32 through six conversions stays below 1e-5.
        np.testing.assert_allclose(result, expected, atol=1e-5)


def draws(count, **options):
    seeds = tf.stack([tf.range(count), tf.fill([count], 3)], axis=1)
    dataset = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: draw_jitter(tf.random.stateless_uniform([8], seed), **options)
    )
    return JitterDraw(*(part.numpy() for part in next(iter(dataset.batch(count)))))


@pytest.mark.parametrize(
    ("formulas", "strength", "brightness", "factor", "hue"),
    [
        ("tensorflow", 1.0, (-0.8, 0.8), (0.2, 1.8), (-0.2, 0.2)),
        ("tensorflow", 0.5, (-0.4, 0.4), (0.6, 1.4), (-0.1, 0.1)),
        ("torchvision", 0.5, (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)),
        ("torchvision", 2.0, (0.0, 2.6), (0.0, 2.6), (-0.4, 0.4)),
    ],
)
def test_amounts_are_uniform_over_their_range(formulas, strength, brightness, factor, hue):
    sample = draws(2000, strength=strength, jitter=formulas)
    for values, (low, high) in (
        (sample.brightness, brightness),
        (sample.contrast, factor),
        (sample.saturation, factor),
        (sample.hue, hue),
    ):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(np.stack(sample[1:])) - np.eye(4)).max() < 0.1


def test_all_24_orders_are_equally_likely():
    orders = [tuple(order) for order in draws(2400, strength=1.0, jitter="tensorflow").order]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == 2400
    assert stats.chisquare(counts).pvalue > 1e-3


def share_changed(function, image, count=1000):
    dataset = tf.data.Dataset.range(count).map(
        lambda number: tf.reduce_any(
            function(image, seed=tf.stack([tf.cast(number, tf.int32), 5])) != image
        )
    )
    return np.mean(list(dataset.as_numpy_iterator()))


def test_jitter_comes_with_probability_8_in_10_and_grey_with_2_in_10():
    image = tf.constant(IMAGES[0])
    # Binomial(1000, 0.8): standard deviation of the share 0.0126.
    assert abs(share_changed(random_color_jitter, image) - 0.8) < 0.05
    assert abs(share_changed(random_grey, image) - 0.2) < 0.05


def test_grey_is_the_weighted_sum_in_all_channels():
    image = IMAGES[0]
    result = random_grey(tf.constant(image), seed=[0, 0], probability=1.0)
    expected = pixelwise(image.astype(np.float64), lambda pixel: [grey(pixel)] * 3)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("formulas", ["tensorflow", "torchvision"])
def test_strength_zero_leaves_every_image_bit_for_bit(formulas):
    for seed in range(5):
        result = random_color_jitter(
            IMAGES[0], seed=[seed, 0], strength=0.0, jitter=formulas, probability=1.0
        )
        np.testing.assert_array_equal(result, IMAGES[0])
