"""The plotted gradient terms (Eq. 4-6) compared with automatic differentiation."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.losses import supcon_loss
from tools.plot_gradient_hardness import example_rows, gradient_terms, loss_terms, rows_at


@pytest.mark.parametrize("summation", ["outside", "inside"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_terms_sum_to_the_gradient_of_the_anchors_loss(summation, normalize, temperature):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if normalize:
        rows[0] *= 3
    labels = np.arange(12) % 3
    features = tf.constant(rows[:, None], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = supcon_loss(
            labels,
            features,
            temperature=temperature,
            summation=summation,
            normalize=normalize,
            scale_by_temperature=False,
        )[0]
    terms = gradient_terms(
        rows[0],
        rows[1:],
        (labels == labels[0])[1:],
        temperature=temperature,
        summation=summation,
        normalize=normalize,
    )
    actual = tape.gradient(loss, features)[0, 0].numpy()
    expected = terms.sum(axis=0)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_normalisation_scales_a_term_by_the_sine_of_its_angle():
    rng = np.random.default_rng(0)
    anchor = np.eye(8)[0]
    similarities = np.linspace(-0.9, 0.9, 7)
    others = rows_at(similarities, anchor, rng)
    np.testing.assert_allclose(others @ anchor, similarities, atol=1e-12)
    plain, through = (
        np.linalg.norm(
            gradient_terms(
                anchor,
                others,
                np.arange(7) < 3,
                temperature=0.5,
                summation="outside",
                normalize=normalize,
            ),
            axis=1,
        )
        for normalize in (False, True)
    )
    np.testing.assert_allclose(through, plain * np.sqrt(1 - similarities**2), atol=1e-12)


@pytest.mark.parametrize("summation", ["outside", "inside"])
def test_lengths_by_differentiation_are_those_of_the_terms(summation):
    _, anchor, others, is_positive = example_rows(5, 20)
    terms = gradient_terms(
        anchor, others, is_positive, temperature=0.5, summation=summation, normalize=True
    )
    options = {"summation": summation, "scale_by_temperature": False}
    lengths = loss_terms(anchor, others, is_positive, temperature=0.5, **options)
    np.testing.assert_allclose(np.abs(lengths), np.linalg.norm(terms, axis=1), rtol=1e-4, atol=1e-6)
    assert (lengths[~is_positive] <= 0).all()
