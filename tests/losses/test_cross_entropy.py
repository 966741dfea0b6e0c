"""Softmax and binary cross-entropy compared with float64 loops."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.losses import BinaryCrossEntropyLoss, CrossEntropyLoss

RNG = np.random.default_rng(0)
SCORES = RNG.normal(scale=3.0, size=(7, 5))
NUMBERS = np.array([0, 4, 2, 2, 1, 3, 0])
ROWS = RNG.dirichlet(np.ones(5), size=7)


def loop(targets, scores, smoothing):
    values = []
    for target, score in zip(targets, scores, strict=True):
        total = math.fsum(math.exp(s - max(score)) for s in score)
        logs = [s - max(score) - math.log(total) for s in score]
        smoothed = [(1 - smoothing) * t + smoothing / len(score) for t in target]
        values.append(-math.fsum(t * log for t, log in zip(smoothed, logs, strict=True)))
    return np.array(values)


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("labels", [NUMBERS, NUMBERS[:, None], np.eye(5)[NUMBERS], ROWS])
def test_values_equal_the_float64_loop(labels, smoothing):
    targets = np.eye(5)[labels.reshape(-1)] if labels.dtype.kind == "i" else labels
    loss = CrossEntropyLoss(label_smoothing=smoothing, reduction=None)
    expected = loop(targets, SCORES, smoothing)
    result = loss(tf.constant(labels), tf.constant(SCORES, tf.float32))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    mean = CrossEntropyLoss(label_smoothing=smoothing)
    np.testing.assert_allclose(mean(labels, SCORES.astype(np.float32)), expected.mean(), rtol=1e-5)


@pytest.mark.parametrize("labels", [NUMBERS, ROWS])
def test_the_gradient_is_probability_minus_smoothed_target(labels):
    scores = tf.Variable(SCORES, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(CrossEntropyLoss(label_smoothing=0.1, reduction=None)(labels, scores))
    targets = np.eye(5)[labels] if labels.ndim == 1 else labels
    probabilities = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
    expected = probabilities - (0.9 * targets + 0.1 / 5)
    np.testing.assert_allclose(tape.gradient(value, scores), expected, atol=1e-6)


PRIOR = np.log([0.4, 0.3, 0.15, 0.1, 0.05])


@pytest.mark.parametrize("labels", [NUMBERS, ROWS])
def test_logit_adjusted_values_and_gradients_equal_the_float64_loop(labels):
    scores = tf.Variable(SCORES, dtype=tf.float32)
    loss = CrossEntropyLoss(log_prior=PRIOR, label_smoothing=0.1, reduction=None)
    with tf.GradientTape() as tape:
        values = loss(labels, scores)
        total = tf.reduce_sum(values)
    targets = np.eye(5)[labels] if labels.ndim == 1 else labels
    np.testing.assert_allclose(values, loop(targets, SCORES + PRIOR, 0.1), rtol=2e-5)
    weights = np.exp(SCORES) * np.exp(PRIOR)
    expected = weights / weights.sum(axis=1, keepdims=True) - (0.9 * targets + 0.1 / 5)
    np.testing.assert_allclose(tape.gradient(total, scores), expected, atol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    np.testing.assert_array_equal(again.log_prior, PRIOR)


def test_a_uniform_log_prior_changes_nothing():
    scores = tf.constant(SCORES, tf.float32)
    adjusted = CrossEntropyLoss(log_prior=[float(np.log(0.2))] * 5)(NUMBERS, scores)
    np.testing.assert_allclose(adjusted, CrossEntropyLoss()(NUMBERS, scores), rtol=1e-6)


def test_log_prior_source_outside_of_a_stage_is_rejected():
    loss = CrossEntropyLoss(log_prior="source")
    with pytest.raises(UserError, match=r"log_prior must be numbers \[5\] here, got 'source'"):
        loss(NUMBERS, tf.constant(SCORES, tf.float32))
    with pytest.raises(
        UserError, match="log_prior must be numbers, 'source' or None, got 'uniform'"
    ):
        CrossEntropyLoss(log_prior="uniform")


def test_bfloat16_and_huge_scores_stay_finite():
    scores = tf.constant([[1e4, -1e4, 0.0]], tf.bfloat16)
    loss = CrossEntropyLoss(label_smoothing=0.1, reduction=None)
    for label in range(3):
        value = loss(tf.constant([label]), scores)
        assert value.dtype == tf.float32
        assert np.isfinite(value.numpy()).all()


def test_the_loss_is_restored_from_its_config():
    loss = CrossEntropyLoss(label_smoothing=0.05, name="smooth")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    assert again.label_smoothing == 0.05


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros([7]), r"integers \[N\] or rows \[N, 5\], got float64 of shape \(7,\)"),
        (np.zeros([7, 4]), r"got float64 of shape \(7, 4\)"),
    ],
)
def test_invalid_labels_are_rejected(labels, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropyLoss()(labels, SCORES)


def test_a_row_of_zeros_has_loss_0_with_label_smoothing_too():
    loss = CrossEntropyLoss(label_smoothing=0.1, reduction=None)
    assert loss(tf.constant([[0.0, 0.0]]), tf.constant([[3.0, 0.0]])).numpy() == [0.0]


def test_label_smoothing_of_one_is_rejected():
    with pytest.raises(ValueError, match=r"label_smoothing must be a number >= 0 and < 1, got 1"):
        CrossEntropyLoss(label_smoothing=1)


MULTI_HOT = (RNG.uniform(size=(7, 5)) < 0.4).astype(np.int64)
SOFT = RNG.uniform(size=(7, 5))


def binary_loop(targets, scores):
    values = []
    for target, score in zip(targets, scores, strict=True):
        terms = []
        for t, s in zip(target, score, strict=True):
            probability = 1 / (1 + math.exp(-s))
            terms.append(-t * math.log(probability) - (1 - t) * math.log(1 - probability))
        values.append(math.fsum(terms) / len(score))
    return np.array(values)


@pytest.mark.parametrize(
    "labels", [MULTI_HOT, MULTI_HOT.astype(np.float32), np.zeros_like(MULTI_HOT), SOFT]
)
def test_binary_values_and_gradients_equal_the_float64_loop(labels):
    scores = tf.Variable(SCORES, dtype=tf.float32)
    with tf.GradientTape() as tape:
        values = BinaryCrossEntropyLoss(reduction=None)(tf.constant(labels), scores)
        total = tf.reduce_sum(values)
    np.testing.assert_allclose(values, binary_loop(labels, SCORES), rtol=1e-5)
    expected = (1 / (1 + np.exp(-SCORES)) - labels) / 5
    np.testing.assert_allclose(tape.gradient(total, scores), expected, atol=1e-6)
    mean = BinaryCrossEntropyLoss()(labels, scores)
    np.testing.assert_allclose(mean, binary_loop(labels, SCORES).mean(), rtol=1e-5)


def test_binary_cross_entropy_of_bfloat16_and_huge_scores_stay_finite():
    scores = tf.constant([[1e4, -1e4]], tf.bfloat16)
    loss = BinaryCrossEntropyLoss(reduction=None)
    right, wrong = loss([[1, 0]], scores), loss([[0, 1]], scores)
    assert right.dtype == tf.float32
    np.testing.assert_allclose([right[0], wrong[0]], [0, 1e4], rtol=0.01)


def test_binary_cross_entropy_is_restored_from_its_config():
    loss = BinaryCrossEntropyLoss(reduction="sum", name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, BinaryCrossEntropyLoss)
    assert again.get_config() == loss.get_config()
    assert (again.reduction, again.name) == ("sum", "mine")


@pytest.mark.parametrize("labels", [np.array([0, 1]), np.zeros((2, 1), int), np.zeros((2, 4))])
def test_binary_cross_entropy_rejects_class_numbers_and_other_shapes(labels):
    with pytest.raises(ValueError, match=r"labels must be rows \[N, 3\], got .* of shape"):
        BinaryCrossEntropyLoss()(labels, tf.zeros([2, 3]))
