"""Measures of projections on the sphere."""

import itertools
import math

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.evaluation import projection_measures

NUMBERS = np.array([0, 1, 1, 2, 0])
ROWS = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])


def by_loop(projections, shares_label):
    """The definitions, one pair at a time."""
    rows = [
        (sample, z / math.sqrt(sum(z * z)))
        for sample, views in enumerate(projections.astype(float))
        for z in views
    ]
    distances, kernel, hits = [], [], 0
    for i, (sample, z) in enumerate(rows):
        others = [(float(sum((z - w) ** 2)), of) for j, (of, w) in enumerate(rows) if j != i]
        positives = [distance for distance, of in others if shares_label(sample, of)]
        distances += positives
        kernel += [math.exp(-2 * distance) for distance, _ in others]
        hits += shares_label(sample, min(others)[1])
    matrix = np.array([z for _, z in rows])
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(matrix.T @ matrix), 0))
    shares = [value / sum(singular) for value in singular if value > 1e-9]
    return {
        "contrastive_accuracy": hits / len(rows),
        "effective_rank": math.exp(-sum(share * math.log(share) for share in shares)),
        "uniformity": math.log(sum(kernel) / len(kernel)),
        "alignment": sum(distances) / len(distances),
    }


@pytest.mark.parametrize(
    ("kind", "num_views"), [("numbers", 1), ("numbers", 3), ("rows", 1), ("rows", 3), ("none", 3)]
)
def test_measures_equal_a_loop_over_the_pairs(kind, num_views):
    projections = np.random.default_rng(0).normal(size=(5, num_views, 4))
    labels, shares_label = {
        "numbers": (NUMBERS, lambda i, j: NUMBERS[i] == NUMBERS[j]),
        "rows": (ROWS, lambda i, j: any(a and b for a, b in zip(ROWS[i], ROWS[j], strict=True))),
        "none": (None, lambda i, j: i == j),
    }[kind]
    measures = projection_measures(projections, labels)
    expected = by_loop(projections, shares_label)
    if labels is not None:
        # Sample 3 has a class of its own, or no label; with rows, sample 4 too.
        expected["anchors_without_positive"] = {"numbers": 0.2, "rows": 0.4}[kind]
    assert measures == pytest.approx(expected, rel=1e-9)


def test_labels_may_be_a_column_or_small_integers():
    projections = np.random.default_rng(0).normal(size=(300, 1, 4))
    numbers = np.arange(300) % 2
    expected = projection_measures(projections, numbers)
    for labels in (numbers[:, None], np.eye(2, dtype=np.uint8)[numbers]):
        assert projection_measures(projections, labels) == pytest.approx(expected)
    # 256 shared labels are 0 as an unsigned byte.
    shared = projection_measures(projections, np.ones((300, 256), np.uint8))
    assert shared["contrastive_accuracy"] == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_point_is_a_collapse(value):
    measures = projection_measures(np.full([4, 2, 8], value), [0, 0, 1, 1])
    expected = {"alignment": 0.0, "uniformity": 0.0, "effective_rank": 1.0}
    assert {name: measures[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_orthogonal_rows_have_full_rank():
    # All pairs are at squared distance 2.
    measures = projection_measures(np.eye(6)[:, None] * 5)
    assert measures == pytest.approx(
        {
            "contrastive_accuracy": 0.0,
            "effective_rank": 6.0,
            "uniformity": -4.0,
        }
    )


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((4, 3), None, r"must be \[N, V, D\] of 2 or more rows, got \(4, 3\)"),
        ((1, 1, 3), None, "2 or more rows"),
        ((4, 1, 3), [0, 1], r"with N = 4, got shape \(2,\)"),
        ((4, 1, 3), np.zeros((4, 1, 1)), r"got shape \(4, 1, 1\)"),
        ((4, 1, 3), np.full((4, 2), 0.5), "must be 0 or 1, got 0.5 to 0.5"),
    ],
)
def test_invalid_shapes_are_rejected(shape, labels, message):
    with pytest.raises(UserError, match=message):
        projection_measures(np.ones(shape), labels)


def test_the_loop_finds_the_nearest_row():
    # A circle: the nearest row is a neighbour by angle.
    angles = np.array([0.0, 0.1, 2.0, 2.1])
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, None]
    for labels in itertools.product([0, 1], repeat=4):
        expected = np.mean([labels[0] == labels[1]] * 2 + [labels[2] == labels[3]] * 2)
        assert projection_measures(circle, labels)["contrastive_accuracy"] == expected
