"""Accuracies and average precisions against loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from supcon_tf.errors import UserError
from supcon_tf.evaluation import (
    average_precisions,
    mean_average_precision,
    mean_per_class_accuracy,
    top_k_accuracy,
    worst_class_accuracy,
)

SCORES = np.random.default_rng(0).normal(size=(4, 3))
LABELS = np.array([2, 0, 2, 1])
MEASURES = pytest.mark.parametrize(
    "measure", [top_k_accuracy, mean_per_class_accuracy, worst_class_accuracy]
)


def test_top_k_accuracy_counts_the_class_among_the_k_highest_scores():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])
    labels = np.array([0, 1, 2])
    assert [top_k_accuracy(scores, labels, k=k) for k in (1, 2, 3, 5)] == [1 / 3, 2 / 3, 1, 1]


def test_constant_scores_are_no_better_than_chance():
    labels = np.repeat(np.arange(10), 5)
    assert top_k_accuracy(np.zeros((50, 10)), labels) == 0.1
    assert top_k_accuracy(np.zeros((50, 10)), labels, k=5) == 0.5


def test_mean_per_class_accuracy_weighs_classes_equally():
    random = np.random.default_rng(0)
    labels = random.choice(4, size=200, p=[0.7, 0.2, 0.09, 0.01])
    scores = random.normal(size=(200, 5)) + 2 * np.eye(5)[labels] * (labels == 0)[:, None]
    kept = scores.copy()
    kept[:, 4] = -9.0  # scikit-learn also counts a class that is only predicted.
    value = mean_per_class_accuracy(kept, labels)
    assert value == pytest.approx(balanced_accuracy_score(labels, kept.argmax(axis=1)))
    assert abs(value - top_k_accuracy(kept, labels)) > 0.1


def test_worst_class_accuracy_is_the_lowest_recall_of_a_class_with_examples():
    labels = np.array([0] * 4 + [1] * 5 + [3] * 2)
    predicted = np.array([0, 0, 0, 1, 1, 1, 0, 0, 3, 3, 3])  # Recalls 3/4, 2/5, 1; no class 2.
    assert worst_class_accuracy(np.eye(4)[predicted], labels) == 2 / 5


def interpolated_loop(scores, targets):
    """VOC 2007, for one class: the mean over 11 recalls of the best precision at this or a higher recall."""
    points = []
    for threshold in sorted(set(scores)):
        chosen = scores >= threshold
        points.append((targets[chosen].mean(), targets[chosen].sum() / targets.sum()))
    best = [max(p for p, r in points if r >= n / 10 - 1e-12) for n in range(11)]
    return sum(best) / 11


def test_mean_average_precision_equals_a_loop_and_scikit_learn():
    random = np.random.default_rng(1)
    targets = (random.uniform(size=(60, 5)) < [0.5, 0.2, 0.1, 0.05, 0.0]).astype(int)
    targets[3, 2:4] = 1
    scores = (random.normal(size=(60, 5)) + targets).round(1)  # Rounded, so that some are equal.
    loops = [interpolated_loop(scores[:, c], targets[:, c]) for c in range(4)]
    assert mean_average_precision(scores, targets) == pytest.approx(np.mean(loops))
    of_classes = average_precisions(scores, targets)
    np.testing.assert_allclose(of_classes, [*loops, np.nan])  # The last class has no image.
    theirs = average_precision_score(targets[:, :4], scores[:, :4], average="macro")
    assert mean_average_precision(scores, targets, interpolation="none") == pytest.approx(theirs)
    assert mean_average_precision(targets, targets) == 1.0
    # Constant scores: precision is the share of the class at every recall.
    constant = mean_average_precision(np.zeros((60, 5)), targets)
    assert constant == pytest.approx(targets[:, :4].mean())


@pytest.mark.parametrize(
    ("scores", "targets", "options", "message"),
    [
        (np.zeros((2, 3)), np.ones((2, 2)), {}, r"got \(2, 3\) and \(2, 2\)"),
        (np.zeros((2, 2)), np.full((2, 2), 2), {}, "targets must be 0 or 1, got 2"),
        (
            np.full((2, 2), np.nan),
            np.ones((2, 2)),
            {},
            "scores must be numbers, got NaN in 2 of 2 rows, first in row 0",
        ),
        (np.full((2, 2), np.inf), np.ones((2, 2)), {}, "scores must be finite, got inf"),
        (
            np.zeros((0, 2)),
            np.ones((0, 2)),
            {},
            r"n >= 1 and C >= 1, got float64 of shape \(0, 2\)",
        ),
        (np.zeros((2, 2)), np.zeros((2, 2)), {}, "at least one image of a class, got none"),
        (np.zeros((2, 2)), np.ones((2, 2)), {"interpolation": "voc"}, "got 'voc'"),
    ],
)
def test_mean_average_precision_rejects_invalid_input(scores, targets, options, message):
    with pytest.raises(UserError, match=message):
        mean_average_precision(scores, targets, **options)


@MEASURES
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_may_be_a_column(measure, dtype):
    # As keras.datasets.cifar10 gives labels.
    assert measure(SCORES, LABELS[:, None].astype(dtype)) == measure(SCORES, LABELS)


@MEASURES
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (SCORES, [2, 0, 3, 1], "labels must be within 0 to 2, got 3"),
        (SCORES, [2, 0, -1, 1], "labels must be within 0 to 2, got -1"),
        (SCORES, np.eye(3)[LABELS], r"must be integers \[n\] or \[n, 1\], got float64 of shape \(4, 3\): .*argmax"),
        (SCORES, [0.0, 1.0, 2.0, 1.0], "must be integers .* got float64"),
        (SCORES, LABELS[:3], r"scores of shape \(4, 3\) need 4 labels, got 3"),
        (SCORES, LABELS[:1], "need 4 labels, got 1"),
        (SCORES[:0], LABELS[:0], r"n >= 1 and C >= 1, got float64 of shape \(0, 3\)"),
        (SCORES[:, :0], LABELS, r"n >= 1 and C >= 1, got float64 of shape \(4, 0\)"),
        (SCORES[0], LABELS[:3], r"scores must be numbers \[n, C\] .* of shape \(3,\)"),
        (np.where(np.eye(4, 3) > 0, np.nan, SCORES), LABELS, "got NaN in 3 of 4 rows, first in row 0"),
        ([["a", "b"]], [0], "scores must be numbers"),
        ([[0.1, 0.9], [1.0]], [0, 1], "the rows of scores must have the same length"),
        (SCORES, [[0], [0, 1], [2], [1]], "the rows of labels must have the same length"),
        (SCORES, ["a", "b", "c", "a"], "labels must be integers"),
        (SCORES, None, "labels must be integers"),
    ],
)  # fmt: skip
def test_invalid_scores_and_labels_are_rejected_with_the_value(measure, scores, labels, message):
    with pytest.raises(UserError, match=message):
        measure(scores, labels)


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_top_k_must_be_a_positive_integer(k):
    with pytest.raises(UserError, match=f"k must be an integer >= 1, got {k}"):
        top_k_accuracy(SCORES, LABELS, k=k)


def test_unsigned_scores_are_ranked_by_their_value():
    assert top_k_accuracy(np.array([[0, 200, 100]], np.uint8), np.array([1])) == 1


def test_infinite_scores_are_ranked():
    assert top_k_accuracy(np.array([[-np.inf, 0.0, np.inf]]), np.array([2])) == 1
