"""Colour jitter against float64 loops, and the distribution of its parameters."""

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.datasets import load_digits

from supcon_tf.data.augment.color import (
    JitterDraw,
    color_jitter,
    color_matrix,
    draw_jitter,
    random_color_jitter,
    random_color_matrix,
    random_grey,
)
from supcon_tf.data.augment.rng import uniforms

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


ORDERS = list(itertools.permutations(range(4)))


def draw(orders, amounts):
    return JitterDraw(tf.constant(orders), *tf.unstack(tf.constant(amounts, tf.float32), axis=1))


@pytest.mark.parametrize("formulas", ["tensorflow", "torchvision"])
@pytest.mark.parametrize("image", IMAGES, ids=["noise", "grey", "corners", "one_pixel"])
def test_jitter_equals_the_float64_loop_in_every_order(image, formulas):
    amounts = [AMOUNTS[formulas][number % 3] for number in range(24)]
    images = tf.tile(image[None], [24, 1, 1, 1])
    results = color_jitter(images, draw(ORDERS, amounts), jitter=formulas)
    for order, image_amounts, result in zip(ORDERS, amounts, results, strict=True):
        expected = loop_jitter(image, order, image_amounts, formulas)
        # A tenth of a grey level of 255 is 4e-4; float32 through six conversions stays below 1e-5.
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("formulas", ["tensorflow", "torchvision"])
def test_small_batches_equal_a_large_batch(formulas):
    images = tf.constant(RNG.random((24, 6, 5, 3)), tf.float32)
    amounts = [AMOUNTS[formulas][number % 3] for number in range(24)]
    whole = color_jitter(images, draw(ORDERS, amounts), jitter=formulas)
    for start, stop in ((0, 1), (1, 3), (20, 24)):
        few = draw(ORDERS[start:stop], amounts[start:stop])
        result = color_jitter(images[start:stop], few, jitter=formulas)
        np.testing.assert_allclose(result, whole[start:stop], atol=2e-6)


def sample_draws(count, **options):
    numbers = uniforms(tf.range(count, dtype=tf.int64), 8)
    return JitterDraw(*(part.numpy() for part in draw_jitter(numbers, **options)))


@pytest.mark.parametrize(
    ("formulas", "strength", "brightness", "factor", "hue"),
    [
        ("tensorflow", 1.0, (-0.8, 0.8), (0.2, 1.8), (-0.2, 0.2)),
        ("tensorflow", 0.5, (-0.4, 0.4), (0.6, 1.4), (-0.1, 0.1)),
        ("torchvision", 0.5, (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)),
        ("torchvision", 2.0, (0.0, 2.6), (0.0, 2.6), (-0.4, 0.4)),
    ],
)
def test_amounts_are_uniform_in_their_range(formulas, strength, brightness, factor, hue):
    sample = sample_draws(2000, strength=strength, jitter=formulas)
    for values, (low, high) in (
        (sample.brightness, brightness),
        (sample.contrast, factor),
        (sample.saturation, factor),
        (sample.hue, hue),
    ):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(np.stack(sample[1:])) - np.eye(4)).max() < 0.1


def test_all_24_orders_are_equally_likely():
    orders = [tuple(order) for order in sample_draws(2400, strength=1.0, jitter="tensorflow").order]
    counts = [orders.count(order) for order in ORDERS]
    assert sum(counts) == 2400
    assert stats.chisquare(counts).pvalue > 1e-3


def share_changed(function, image, count=1000):
    images = tf.tile(image[None], [count, 1, 1, 1])
    results = function(images, seed=tf.range(count, dtype=tf.int64))
    return np.mean(np.any(results.numpy() != image, axis=(1, 2, 3)))


def test_jitter_has_probability_0_8_and_grey_0_2():
    image = IMAGES[0]
    # Binomial(1000, 0.8): standard deviation of the share 0.0126.
    assert abs(share_changed(random_color_jitter, image) - 0.8) < 0.05
    assert abs(share_changed(random_grey, image) - 0.2) < 0.05


def test_grey_is_the_weighted_sum_in_all_channels():
    image = IMAGES[0]
    seeds = tf.constant([0], tf.int64)
    result = random_grey(tf.constant(image[None]), seed=seeds, probability=1.0)[0]
    expected = pixelwise(image.astype(np.float64), lambda pixel: [grey(pixel)] * 3)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("formulas", ["tensorflow", "torchvision"])
def test_zero_strength_changes_no_bit(formulas):
    images = tf.tile(IMAGES[0][None], [8, 1, 1, 1])
    seeds = tf.range(8, dtype=tf.int64)
    options = {"strength": 0.0, "jitter": formulas}
    result = random_color_jitter(images, seed=seeds, probability=1.0, **options)
    np.testing.assert_array_equal(result, images)
    in_colour = random_color_matrix(images, jitter_seed=seeds, grey_seed=seeds, **options)
    unchanged = np.isclose(in_colour, images, atol=1e-6).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(unchanged, uniforms(seeds, 1)[:, 0] >= 0.2)


def mixed(images, matrix, offset):
    return np.einsum("nij,nhwj->nhwi", matrix, images) + np.asarray(offset)[:, None, None]


@pytest.mark.parametrize("formulas", ["tensorflow", "torchvision"])
def test_color_matrix_equals_the_jitter_without_clipping_and_hue(formulas):
    # Small changes of mid-grey images do not clip. The saturation of "tensorflow", in HSV, is not
    # linear, so it does not change here.
    images = (0.4 + 0.2 * RNG.random((24, 7, 9, 3))).astype(np.float32)
    amounts = RNG.uniform(0.8, 1.2, (24, 4))
    amounts[:, 3] = 0.0
    if formulas == "tensorflow":
        amounts[:, 0] -= 1.0
        amounts[:, 2] = 1.0
    jitter_draw = draw(ORDERS, amounts)
    means = tf.reduce_mean(images, axis=(1, 2))
    result = mixed(images, *color_matrix(jitter_draw, means, jitter=formulas))
    assert 0.0 < result.min() < result.max() < 1.0
    expected = color_jitter(tf.constant(images), jitter_draw, jitter=formulas)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    for image, order, image_amounts, ours in zip(images, ORDERS, amounts, result, strict=True):
        np.testing.assert_allclose(
            ours, loop_jitter(image, order, image_amounts, formulas), atol=1e-5
        )


def test_color_matrix_rotates_the_hue_about_the_grey_axis():
    turns = np.float32([0.0, 0.25, 0.5, -0.25, 0.1, 0.9])
    orders = np.tile([3, 0, 1, 2], [6, 1])
    amounts = np.stack([0 * turns, 0 * turns + 1, 0 * turns + 1, turns], axis=1)
    pixels = RNG.random((6, 1, 3)).astype(np.float32)
    matrix, offset = color_matrix(draw(orders, amounts), tf.constant(pixels[:, 0]))
    matrix = matrix.numpy()
    np.testing.assert_allclose(offset, np.zeros([6, 3]), atol=1e-6)
    # Grey and luma do not change, half a turn negates the chroma, and turns add up.
    np.testing.assert_allclose(matrix @ np.ones(3), np.ones([6, 3]), atol=2e-3)
    luma = np.array([0.2989, 0.587, 0.114])
    np.testing.assert_allclose(luma @ matrix, np.tile(luma, [6, 1]), atol=1e-6)
    np.testing.assert_allclose(matrix[0], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(matrix[1] @ matrix[1], matrix[2], atol=1e-5)
    np.testing.assert_allclose(matrix[1] @ matrix[3], np.eye(3), atol=1e-5)
    np.testing.assert_allclose(matrix[4] @ matrix[5], np.eye(3), atol=1e-5)
    color = pixels[2, 0] - luma @ pixels[2, 0] / luma.sum()
    np.testing.assert_allclose(matrix[2] @ color, -color, atol=2e-3)


@pytest.mark.parametrize("formulas", ["tensorflow", "torchvision"])
@pytest.mark.parametrize("size", [(6, 5), (8, 8), (1, 1)])
def test_random_matrix_is_jitter_then_grey_with_the_same_random_numbers(size, formulas):
    count = 64
    images = RNG.random((count, *size, 3)).astype(np.float32)
    jitter_seed, grey_seed = (
        tf.range(count, dtype=tf.int64),
        tf.range(500, 500 + count, dtype=tf.int64),
    )
    options = {"strength": 0.5, "jitter": formulas}
    result = random_color_matrix(images, jitter_seed=jitter_seed, grey_seed=grey_seed, **options)
    numbers = uniforms(jitter_seed, 9).numpy()
    drawn = draw_jitter(numbers[:, :8], **options)
    matrix, offset = color_matrix(drawn, tf.reduce_mean(images, axis=(1, 2)), jitter=formulas)
    jittered = mixed(images, matrix, offset)
    kept = numbers[:, 8] >= 0.8
    jittered[kept] = images[kept]
    turned_grey = uniforms(grey_seed, 1).numpy()[:, 0] < 0.2
    assert 0 < kept.sum() < count
    assert 0 < turned_grey.sum() < count
    weighted = jittered @ np.array([0.2989, 0.587, 0.114])
    jittered[turned_grey] = np.repeat(weighted[..., None], 3, axis=-1)[turned_grey]
    np.testing.assert_allclose(result, np.clip(jittered, 0.0, 1.0), atol=1e-5)


def smooth_color_images():
    small = tf.random.stateless_uniform([200, 4, 4, 3], [0, 1])
    return tf.clip_by_value(tf.image.resize(small, [32, 32], method="bicubic"), 0.0, 1.0)


def digit_images():
    grey = tf.constant(load_digits().images[:200, ..., None] / 16.0, tf.float32)
    upscaled = tf.image.resize(grey, [32, 32], method="bicubic")
    return tf.image.grayscale_to_rgb(tf.clip_by_value(upscaled, 0.0, 1.0))


@pytest.mark.parametrize(
    ("read_images", "formulas", "strength", "bound"),
    [
        # Measured: 0.0075, 0.0189, 0.0016, 0.0043; 0.0435, 0.0571, 0.0328, 0.0472, where the
        # jitter changes a value by 0.06 to 0.22 and by 0.12 to 0.27.
        (digit_images, "tensorflow", 0.5, 0.012),
        (digit_images, "tensorflow", 1.0, 0.028),
        (digit_images, "torchvision", 0.5, 0.003),
        (digit_images, "torchvision", 1.0, 0.008),
        (smooth_color_images, "tensorflow", 0.5, 0.06),
        (smooth_color_images, "tensorflow", 1.0, 0.075),
        (smooth_color_images, "torchvision", 0.5, 0.045),
        (smooth_color_images, "torchvision", 1.0, 0.065),
    ],
)
def test_color_matrix_is_close_to_the_jitter_on_average(read_images, formulas, strength, bound):
    images, seeds = read_images(), tf.range(200, dtype=tf.int64)
    options = {"strength": strength, "jitter": formulas}
    exact = random_color_jitter(images, seed=seeds, **options)
    exact = random_grey(exact, seed=seeds + 1000)
    result = random_color_matrix(images, jitter_seed=seeds, grey_seed=seeds + 1000, **options)
    assert np.abs(exact - result).mean() < bound
    assert np.abs(exact - images).mean() > 2.5 * bound
