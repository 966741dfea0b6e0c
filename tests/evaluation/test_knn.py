"""Classifiers that compare embeddings with labelled references, against loops."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.evaluation import (
    knn_probabilities,
    prototype_probabilities,
    soft_neighbor_probabilities,
)

CLASSIFIERS = pytest.mark.parametrize(
    "classify", [knn_probabilities, prototype_probabilities, soft_neighbor_probabilities]
)


def test_knn_votes_equal_a_loop_over_the_neighbours():
    rng = np.random.default_rng(0)
    references, labels = rng.normal(size=(30, 5)), rng.integers(0, 4, 30)
    queries = rng.normal(size=(9, 5))
    votes = knn_probabilities(
        queries,
        references,
        labels,
        num_classes=4,
        num_neighbors=6,
        temperature=0.2,
        rows_per_block=4,
    )
    for query, row in zip(queries, votes, strict=True):
        cosines = [
            float(query @ other / np.linalg.norm(query) / np.linalg.norm(other))
            for other in references
        ]
        expected = np.zeros(4)
        for number in sorted(range(30), key=lambda number: -cosines[number])[:6]:
            expected[labels[number]] += np.exp(cosines[number] / 0.2)
        np.testing.assert_allclose(row, expected / expected.sum(), rtol=1e-4)


def test_neighbours_with_several_labels_vote_for_each_of_them():
    references = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    rows = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    query = np.array([[1.0, 1.0]])  # At 45 degrees to the first two, so both have the same weight.
    votes = knn_probabilities(query, references, rows, num_classes=3, num_neighbors=2)
    np.testing.assert_allclose(votes, [[0.5, 1.0, 0.0]], atol=1e-6)


def test_knn_uses_all_references_when_there_are_fewer_than_neighbours():
    votes = knn_probabilities(
        np.eye(2), np.eye(2), np.array([0, 1]), num_classes=2, num_neighbors=20
    )
    assert votes.argmax(1).tolist() == [0, 1]


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def softmax(values):
    shares = np.exp(np.array(values) - np.max(values))
    return shares / shares.sum()


def test_prototypes_are_the_mean_directions_of_the_classes():
    rng = np.random.default_rng(1)
    # The lengths differ, so the mean of unnormalised rows would have another direction.
    references = rng.normal(size=(30, 5)) * rng.uniform(0.1, 10, (30, 1))
    labels, queries = rng.choice([0, 1, 3], 30), rng.normal(size=(9, 5))
    found = prototype_probabilities(queries, references, labels, num_classes=5, temperature=0.3)
    for query, row in zip(queries, found, strict=True):
        prototypes = {}
        for label in (0, 1, 3):
            members = [rows / np.linalg.norm(rows) for rows in references[labels == label]]
            prototypes[label] = sum(members) / len(members)
        cosines = [cosine(query, prototype) / 0.3 for prototype in prototypes.values()]
        expected = np.zeros(5)
        expected[[0, 1, 3]] = softmax(cosines)
        np.testing.assert_allclose(row, expected, rtol=1e-4)


def test_soft_neighbours_all_vote():
    rng = np.random.default_rng(2)
    references, labels = rng.normal(size=(30, 5)), rng.integers(0, 4, 30)
    queries = rng.normal(size=(9, 5))
    found = soft_neighbor_probabilities(
        queries, references, labels, num_classes=4, temperature=0.2, rows_per_block=4
    )
    for query, row in zip(queries, found, strict=True):
        weights = softmax([cosine(query, other) / 0.2 for other in references])
        expected = [weights[labels == label].sum() for label in range(4)]
        np.testing.assert_allclose(row, expected, rtol=1e-4)


@pytest.mark.parametrize("classify", [knn_probabilities, soft_neighbor_probabilities])
def test_no_one_hot_row_is_made_for_every_reference(classify, monkeypatch):
    made, one_hot = [], tf.one_hot

    def counting(*args):
        made.append(one_hot(*args))
        return made[-1]

    monkeypatch.setattr(tf, "one_hot", counting)
    references = np.random.default_rng(0).normal(size=(60, 5))
    options = {"num_neighbors": 3} if classify is knn_probabilities else {}
    classify(references[:2], references, np.arange(60), num_classes=60, **options)
    assert sum(rows.shape.num_elements() for rows in made) <= 2 * 3 * 60


@CLASSIFIERS
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_reference_labels_may_be_a_column(classify, dtype):
    rows, labels = np.random.default_rng(0).normal(size=(4, 3)), np.array([2, 0, 2, 1])
    np.testing.assert_array_equal(
        classify(rows, rows, labels[:, None].astype(dtype), num_classes=3),
        classify(rows, rows, labels, num_classes=3),
    )


@CLASSIFIERS
@pytest.mark.parametrize("scale", [1e-8, 1e-30, 1e15])
def test_the_length_of_embeddings_does_not_matter(classify, scale):
    rows = np.random.default_rng(0).normal(size=(12, 3))
    labels = np.arange(12) % 4
    np.testing.assert_allclose(
        classify(rows * scale, rows, labels, num_classes=4),
        classify(rows, rows * scale, labels, num_classes=4),
        atol=1e-6,
    )


def arguments(**changed):
    given = {
        "embeddings": np.eye(3),
        "reference_embeddings": np.eye(3),
        "reference_labels": np.array([0, 1, 1]),
        "num_classes": 2,
    }
    return {**given, **changed}


@CLASSIFIERS
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference_labels": [[0], [0, 1], [1]]}, "rows of reference_labels must have the same"),
        ({"embeddings": [[0.0], [0.0, 1.0]]}, "rows of embeddings must have the same length"),
        ({"reference_embeddings": np.full((3, 3), "a")}, r"must be numbers \[n, D\]"),
        ({"reference_labels": np.array([0, 1, 2])}, "reference_labels must be within 0 to 1, got 2"),
        ({"reference_labels": np.array([0, 1, -1])}, "reference_labels must be within 0 to 1, got -1"),
        ({"reference_labels": np.array([0, 1])}, "for each of 3 reference_embeddings, got 2"),
        ({"reference_labels": np.array([0.0, 1.0, 1.0])}, "must be integers .* got float64"),
        ({"reference_labels": np.zeros((3, 5))}, r"shape \(3, 5\)"),
        ({"embeddings": np.zeros((0, 3))}, r"embeddings must be .* n >= 1 and D >= 1, got .*\(0, 3\)"),
        ({"embeddings": np.eye(3)[0]}, r"embeddings must be numbers .* of shape \(3,\)"),
        ({"embeddings": np.eye(2)}, "must have the same dimension, got 2 and 3"),
        ({"embeddings": np.diag([1, np.nan, 1])}, "embeddings must be finite, got 1 of 3 rows that are not, first row 1"),
        ({"embeddings": np.diag([1, 1, 1e30])}, "embeddings must be finite, .* first row 2"),
        ({"reference_embeddings": np.diag([np.inf, 1, 1])}, "reference_embeddings must be finite"),
        ({"reference_embeddings": np.zeros((0, 3)), "reference_labels": np.zeros(0, int)}, r"reference_embeddings must be .* of shape \(0, 3\)"),
        ({"temperature": 0}, "temperature must be a number > 0, got 0"),
        ({"temperature": np.nan}, "temperature must be a number > 0, got nan"),
        ({"num_classes": 0}, "num_classes must be an integer >= 1, got 0"),
    ],
)  # fmt: skip
def test_invalid_input_is_rejected_with_the_value(classify, changed, message):
    with pytest.raises(UserError, match=message):
        classify(**arguments(**changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_neighbors": 0}, "num_neighbors must be an integer >= 1, got 0"),
        ({"rows_per_block": 0}, "rows_per_block must be an integer >= 1, got 0"),
        ({"reference_labels": np.array([[0, 1], [0, 1], [0, 2]])}, r"\[m, C\] must be 0 or 1, got 2"),
        ({"reference_labels": np.array([[0, 1], [0, 1]])}, "for each of 3 reference_embeddings, got 2"),
    ],
)  # fmt: skip
def test_knn_rejects_invalid_options_and_label_rows(changed, message):
    with pytest.raises(UserError, match=message):
        knn_probabilities(**arguments(**changed))


@pytest.mark.parametrize(("column", "expected"), [([0, 0, 0], 1.0), ([1, 0, 0], 1 / 3)])
def test_a_column_of_one_class_is_class_numbers_or_memberships(column, expected):
    # The query is equally far from all references; none or one of them has the label 1.
    changed = {"reference_labels": np.array(column)[:, None], "num_classes": 1}
    votes = knn_probabilities(**arguments(**changed, embeddings=np.ones((1, 3))))
    np.testing.assert_allclose(votes, [[expected]], rtol=1e-6)
