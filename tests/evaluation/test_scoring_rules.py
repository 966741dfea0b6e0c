"""Negative log-likelihood and Brier score against loops and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss

from supcon_tf.errors import UserError
from supcon_tf.evaluation import (
    brier_score,
    brier_scores,
    negative_log_likelihood,
    negative_log_likelihoods,
)

PROBABILITIES = np.random.default_rng(0).dirichlet(np.full(4, 0.5), size=50)
LABELS = np.random.default_rng(1).integers(0, 4, 50)
RULES = pytest.mark.parametrize("rule", [negative_log_likelihood, brier_score])


def test_negative_log_likelihood_equals_a_loop_and_scikit_learn():
    loop = [-math.log(row[label]) for row, label in zip(PROBABILITIES, LABELS, strict=True)]
    np.testing.assert_allclose(negative_log_likelihoods(PROBABILITIES, LABELS), loop, rtol=1e-12)
    value = negative_log_likelihood(PROBABILITIES, LABELS)
    assert value == pytest.approx(sum(loop) / 50, rel=1e-12)
    assert value == pytest.approx(log_loss(LABELS, PROBABILITIES, labels=range(4)))


def test_brier_score_equals_a_loop():
    loop = [
        sum((p - (c == label)) ** 2 for c, p in enumerate(row))
        for row, label in zip(PROBABILITIES, LABELS, strict=True)
    ]
    np.testing.assert_allclose(brier_scores(PROBABILITIES, LABELS), loop, rtol=1e-12)
    assert brier_score(PROBABILITIES, LABELS) == pytest.approx(sum(loop) / 50, rel=1e-12)


def test_certain_predictions_have_the_lowest_and_the_highest_scores():
    certain = np.eye(2, dtype=np.float32)
    assert negative_log_likelihood(certain, [0, 1]) == brier_score(certain, [0, 1]) == 0
    assert brier_score(certain, [1, 0]) == 2
    # Finite: zero counts as the smallest normal float32 number, 2^-126.
    assert negative_log_likelihood(certain, [1, 0]) == pytest.approx(126 * math.log(2))


@RULES
def test_a_softmax_that_exceeds_one_by_rounding_is_accepted(rule):
    above = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0]], np.float32)
    assert rule(above, [0]) == pytest.approx(0, abs=1e-12)


@RULES
@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.4]], [0], r"must sum to 1, got 0.9 in row 0"),
        ([[0.5, 0.5], [1.0, 1.0]], [0, 0], r"must sum to 1, got 2 in row 1"),
        ([[2.0, -1.0]], [0], r"within \[0, 1\], got -1.0: apply a softmax"),
        ([[np.nan, 0.5]], [0], "got NaN in 1 of 1 rows"),
        ([[0.5, 0.5]], [2], "labels must be within 0 to 1, got 2"),
        ([[0.5, 0.5]], [0, 1], "need 1 labels, got 2"),
    ],
)
def test_invalid_probabilities_and_labels_are_rejected(rule, probabilities, labels, message):
    with pytest.raises(UserError, match=message):
        rule(np.array(probabilities), np.array(labels))
