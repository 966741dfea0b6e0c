"""Binary cross-entropy against a float64 loop."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.losses import BinaryCrossEntropyLoss

RNG = np.random.default_rng(0)
SCORES = RNG.normal(scale=3.0, size=(7, 5))
ROWS = (RNG.uniform(size=(7, 5)) < 0.4).astype(np.int64)
MIXED = RNG.uniform(size=(7, 5))


def loop(targets, scores):
    values = []
    for target, score in zip(targets, scores, strict=True):
        terms = []
        for t, s in zip(target, score, strict=True):
            probability = 1 / (1 + math.exp(-s))
            terms.append(-t * math.log(probability) - (1 - t) * math.log(1 - probability))
        values.append(math.fsum(terms) / len(score))
    return np.array(values)


@pytest.mark.parametrize("labels", [ROWS, ROWS.astype(np.float32), np.zeros_like(ROWS), MIXED])
def test_values_and_gradients_equal_the_float64_loop(labels):
    scores = tf.Variable(SCORES, dtype=tf.float32)
    with tf.GradientTape() as tape:
        values = BinaryCrossEntropyLoss(reduction=None)(tf.constant(labels), scores)
        total = tf.reduce_sum(values)
    np.testing.assert_allclose(values, loop(labels, SCORES), rtol=1e-5)
    expected = (1 / (1 + np.exp(-SCORES)) - labels) / 5
    np.testing.assert_allclose(tape.gradient(total, scores), expected, atol=1e-6)
    mean = BinaryCrossEntropyLoss()(labels, scores)
    np.testing.assert_allclose(mean, loop(labels, SCORES).mean(), rtol=1e-5)


def test_bfloat16_and_huge_scores_stay_finite():
    scores = tf.constant([[1e4, -1e4]], tf.bfloat16)
    loss = BinaryCrossEntropyLoss(reduction=None)
    right, wrong = loss([[1, 0]], scores), loss([[0, 1]], scores)
    assert right.dtype == tf.float32
    np.testing.assert_allclose([right[0], wrong[0]], [0, 1e4], rtol=0.01)


def test_the_configuration_gives_the_loss_back():
    loss = BinaryCrossEntropyLoss(reduction="sum", name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, BinaryCrossEntropyLoss)
    assert again.get_config() == loss.get_config()
    assert (again.reduction, again.name) == ("sum", "mine")


@pytest.mark.parametrize("labels", [np.array([0, 1]), np.zeros((2, 1), int), np.zeros((2, 4))])
def test_class_numbers_and_other_shapes_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels must be rows \[N, 3\], got .* of shape"):
        BinaryCrossEntropyLoss()(labels, tf.zeros([2, 3]))
