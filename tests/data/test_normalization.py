"""Measured normalization constants, and their effect."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import views
from supcon_tf.data.normalization import measure, with_measured_normalization
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError


@pytest.fixture(scope="module")
def split():
    bytes_ = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)) // [1, 2, 4]
    images = tf.constant(bytes_, tf.uint8)
    return IndexedSplit(np.zeros(20, np.int64), lambda number: tf.gather(images, number))


def test_measured_constants_are_mean_and_deviation_of_all_pixels(split):
    preprocessing = views.Preprocessing(8)
    means, deviations = measure(preprocessing, split)
    pixels = np.stack([image.numpy() for image, _ in split.in_order()]) / 255 * 2 - 1
    # The evaluation crop cuts off a border.
    assert np.abs(means - pixels.mean((0, 1, 2))).max() < 0.1
    whole = views.Preprocessing(
        8, eval_crop=lambda image, size_px: tf.cast(image, tf.float32) / 255
    )
    means, deviations = measure(whole, split)
    np.testing.assert_allclose(means, pixels.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(deviations, pixels.std((0, 1, 2)), atol=1e-6)


def test_normalized_images_have_mean_zero_and_deviation_one(split):
    preprocessing = with_measured_normalization(
        views.Preprocessing(8, normalization="measure"), split
    )
    seen = np.stack([preprocessing.evaluation_view(image) for image, _ in split.in_order()])
    np.testing.assert_allclose(seen.mean((0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(seen.std((0, 1, 2)), 1.0, atol=1e-5)


def test_given_constants_are_kept(split):
    given = views.Preprocessing(8, normalization=((0.0,) * 3, (0.5,) * 3))
    assert with_measured_normalization(given, split) is given


def test_wrong_or_unmeasured_normalization_is_rejected():
    with pytest.raises(UserError, match="has not been measured"):
        views.Preprocessing(8, normalization="measure").evaluation_view(tf.zeros([8, 8, 3]))
    zero_deviation = ((0.0,) * 3, (0.5, 0.0, 0.5))
    not_a_number = ((0.0,) * 3, (0.5, float("nan"), 0.5))
    for wrong in ("measured", (0.0, 1.0), zero_deviation, not_a_number):
        with pytest.raises(UserError, match="normalization must be None"):
            views.Preprocessing(8, normalization=wrong)
