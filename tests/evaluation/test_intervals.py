"""Measures with bootstrap intervals against loops over resamples."""

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.evaluation import (
    Interval,
    augrc,
    aurc,
    brier_score,
    classification_intervals,
    mean_average_precision_at_r,
    negative_log_likelihood,
    recall_at_k,
    retrieval_intervals,
    top_k_accuracy,
    worst_class_accuracy,
)
from supcon_tf.evaluation.bootstrap import resampled_counts
from supcon_tf.evaluation.intervals import as_metrics

RNG = np.random.default_rng(0)
# Rounded, so that confidences are tied.
PROBABILITIES = RNG.multinomial(20, RNG.dirichlet(np.full(4, 0.5), size=30)) / 20
LABELS = np.where(RNG.uniform(size=30) < 0.5, PROBABILITIES.argmax(axis=1), RNG.integers(0, 4, 30))


def measures(probabilities, labels):
    confidences = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return {
        "top_1": top_k_accuracy(probabilities, labels),
        "negative_log_likelihood": negative_log_likelihood(probabilities, labels),
        "brier_score": brier_score(probabilities, labels),
        "worst_class": worst_class_accuracy(probabilities, labels),
        "aurc": aurc(*confidences),
        "augrc": augrc(*confidences),
    }


def test_intervals_equal_the_quantiles_of_measures_on_repeated_images():
    found = classification_intervals(PROBABILITIES, LABELS, resamples=40, seed=2)
    [counts] = resampled_counts(30, 40, 2)
    resampled = [
        measures(np.repeat(PROBABILITIES, row, axis=0), np.repeat(LABELS, row)) for row in counts
    ]
    for name, value in measures(PROBABILITIES, LABELS).items():
        low, high = np.quantile([each[name] for each in resampled], (0.025, 0.975))
        assert low < high
        assert found[name].value == pytest.approx(value)
        assert (found[name].low, found[name].high) == pytest.approx((low, high))
    assert found.keys() == measures(PROBABILITIES, LABELS).keys()


def test_retrieval_intervals_are_over_the_query_images():
    embeddings = RNG.normal(size=(30, 3))
    found = retrieval_intervals(embeddings, LABELS)
    expected = {
        "recall_at_1": recall_at_k(embeddings, LABELS),
        "mean_average_precision_at_r": mean_average_precision_at_r(embeddings, LABELS),
    }
    assert found.keys() == expected.keys()
    for name, measure in expected.items():
        assert found[name].value == measure.mean
        assert found[name].low < measure.mean < found[name].high
    assert retrieval_intervals(embeddings, np.arange(30)) == {}


def test_metrics_have_values_and_limits():
    metrics = as_metrics({"aurc": Interval(0.2, 0.1, 0.3)})
    assert metrics == {"aurc": 0.2, "intervals": {"aurc": [0.1, 0.3]}}


def test_labels_outside_the_classes_are_rejected():
    with pytest.raises(UserError, match="labels must be within 0 to 3, got 4"):
        classification_intervals(PROBABILITIES, np.where(LABELS.max() == LABELS, 4, LABELS))
