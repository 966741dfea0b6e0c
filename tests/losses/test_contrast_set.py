"""SupCon with a given contrast set, compared with the float64 loop, and edge cases."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.losses import contrast_set_supcon_loss
from tests import reference

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(5, 2, 3, 2))
CONTRAST = RNG.normal(size=(9, 6))
LABELS, CONTRAST_LABELS = np.array([0, 1, 2, 0, 7]), np.array([0, 1, 1, 2, 0, 3, 1, 2, 0])
MASK = np.array([1, 1, 0, 1, 1, 1, 1, 0, 0], bool)


def with_gradients(labels, features, contrast_labels, contrast, **options):
    features, contrast = tf.constant(features, tf.float32), tf.constant(contrast, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([features, contrast])
        values = contrast_set_supcon_loss(labels, features, contrast_labels, contrast, **options)
        total = tf.reduce_sum(values)
    return values, *tape.gradient(total, [features, contrast])


@pytest.mark.parametrize("summation", ["outside", "inside"])
@pytest.mark.parametrize("denominator", ["all", "one_positive", "only_negatives"])
@pytest.mark.parametrize("mask", [None, MASK])
def test_values_and_gradients_equal_the_loop(summation, denominator, mask):
    options = {
        "summation": summation,
        "denominator": denominator,
        "contrast_mask": mask,
        "temperature": 0.3,
        # Both values of both options occur.
        "normalize": mask is None,
        "scale_by_temperature": summation == "outside",
    }
    found = with_gradients(LABELS, FEATURES, CONTRAST_LABELS, CONTRAST, **options)
    expected = reference.contrast_set_supcon_loss(
        LABELS, FEATURES.reshape(5, 2, 6), CONTRAST_LABELS, CONTRAST, **options
    )
    for one, other in zip(found, expected, strict=True):
        one = one.numpy().reshape(other.shape)
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def test_multi_hot_samples_with_a_common_label_are_positives():
    labels, contrast_labels = RNG.random((5, 4)) < 0.4, RNG.random((9, 4)) < 0.4
    found = with_gradients(labels, FEATURES, contrast_labels, CONTRAST)
    expected = reference.contrast_set_supcon_loss(
        labels, FEATURES.reshape(5, 2, 6), contrast_labels, CONTRAST
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-5, atol=2e-6)


def test_large_class_numbers_are_not_merged():
    labels = np.array([2**53, 2**53 + 1])
    rows = np.eye(2, dtype=np.float32)
    found = contrast_set_supcon_loss(labels, rows[:, None], labels, rows, temperature=1.0)
    expected = reference.contrast_set_supcon_loss(
        labels, rows[:, None], labels, rows, temperature=1.0
    )[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert expected[0] == pytest.approx(np.log(1 + np.exp(-1)))


@pytest.mark.parametrize("denominator", ["all", "one_positive", "only_negatives"])
def test_without_positives_value_and_gradient_are_zero(denominator):
    for labels, mask in ((np.full(5, 9), None), (LABELS, np.zeros(9, bool))):
        found = with_gradients(
            labels, FEATURES, CONTRAST_LABELS, CONTRAST, contrast_mask=mask, denominator=denominator
        )
        for values in found:
            np.testing.assert_array_equal(values, np.zeros(values.shape))


def test_masked_rows_have_no_effect():
    found = contrast_set_supcon_loss(
        LABELS, FEATURES, CONTRAST_LABELS, CONTRAST, contrast_mask=MASK
    )
    kept = contrast_set_supcon_loss(LABELS, FEATURES, CONTRAST_LABELS[MASK], CONTRAST[MASK])
    np.testing.assert_allclose(found, kept, rtol=1e-6)
    other = np.where(MASK[:, None], CONTRAST, 0.0)
    again, _, of_contrast = with_gradients(
        LABELS, FEATURES, CONTRAST_LABELS, other, contrast_mask=MASK
    )
    np.testing.assert_allclose(again, kept, rtol=1e-6)
    np.testing.assert_array_equal(of_contrast.numpy()[~MASK], 0.0)


def test_invalid_arguments_are_rejected():
    for options, message in (
        ({"temperature": 0.0}, "temperature must be a number > 0, got 0.0"),
        ({"summation": "both"}, "summation must be one of .* got 'both'"),
        ({"denominator": "none"}, "denominator must be one of .* got 'none'"),
    ):
        with pytest.raises(ValueError, match=message):
            contrast_set_supcon_loss(LABELS, FEATURES, CONTRAST_LABELS, CONTRAST, **options)
    with pytest.raises(ValueError, match="must have the same length, got 6 and 5"):
        contrast_set_supcon_loss(LABELS, FEATURES, CONTRAST_LABELS, CONTRAST[:, :5])
    with pytest.raises(
        ValueError,
        match=r"must be .N. and .M., or .N, C. and .M, C., got shapes \(5, 4\) and \(9,\)",
    ):
        contrast_set_supcon_loss(np.ones((5, 4)), FEATURES, CONTRAST_LABELS, CONTRAST)
    with pytest.raises(ValueError, match="must both be given, got None"):
        contrast_set_supcon_loss(None, FEATURES, CONTRAST_LABELS, CONTRAST)
