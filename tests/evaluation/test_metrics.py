"""Accuracies, nearest neighbours and predictions against loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from supcon_tf.evaluation import (
    average_precisions,
    knn_probabilities,
    mean_average_precision,
    mean_per_class_accuracy,
    predict,
    prototype_probabilities,
    soft_neighbor_probabilities,
    top_k_accuracy,
)


def test_top_k_counts_a_class_among_the_k_best():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])
    labels = np.array([0, 1, 2])
    assert [top_k_accuracy(scores, labels, k=k) for k in (1, 2, 3, 5)] == [1 / 3, 2 / 3, 1, 1]


def test_constant_scores_are_no_better_than_chance():
    labels = np.repeat(np.arange(10), 5)
    assert top_k_accuracy(np.zeros((50, 10)), labels) == 0.1
    assert top_k_accuracy(np.zeros((50, 10)), labels, k=5) == 0.5


def test_top_k_refuses_what_cannot_be_counted():
    with pytest.raises(ValueError, match="got k=0 and n=1"):
        top_k_accuracy(np.zeros((1, 2)), np.array([0]), k=0)
    with pytest.raises(ValueError, match="got k=1 and n=0"):
        top_k_accuracy(np.zeros((0, 2)), np.array([], int))


def test_mean_per_class_accuracy_weighs_classes_and_not_images():
    random = np.random.default_rng(0)
    labels = random.choice(4, size=200, p=[0.7, 0.2, 0.09, 0.01])
    scores = random.normal(size=(200, 5)) + 2 * np.eye(5)[labels] * (labels == 0)[:, None]
    kept = scores.copy()
    kept[:, 4] = -9.0  # scikit-learn counts a class that is only guessed.
    value = mean_per_class_accuracy(kept, labels)
    assert value == pytest.approx(balanced_accuracy_score(labels, kept.argmax(axis=1)))
    assert abs(value - top_k_accuracy(kept, labels)) > 0.1
    with pytest.raises(ValueError, match="got no example"):
        mean_per_class_accuracy(np.zeros((0, 2)), np.array([], int))


def interpolated_loop(scores, targets):
    """VOC 2007: the mean over 11 recalls of the best precision from there on, for one class."""
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
    ("scores", "targets", "options", "says"),
    [
        (np.zeros((2, 3)), np.ones((2, 2)), {}, r"got \(2, 3\) and \(2, 2\)"),
        (np.zeros((2, 2)), np.full((2, 2), 2), {}, "targets must be 0 or 1"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), {}, "scores finite"),
        (np.zeros((2, 2)), np.zeros((2, 2)), {}, "at least one image of a class, got none"),
        (np.zeros((2, 2)), np.ones((2, 2)), {"interpolation": "voc"}, "got 'voc'"),
    ],
)
def test_mean_average_precision_refuses_what_it_cannot_rank(scores, targets, options, says):
    with pytest.raises(ValueError, match=says):
        mean_average_precision(scores, targets, **options)


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
    query = np.array([[1.0, 1.0]])  # At 45 degrees of the first two, so that both vote alike.
    votes = knn_probabilities(query, references, rows, num_classes=3, num_neighbors=2)
    np.testing.assert_allclose(votes, [[0.5, 1.0, 0.0]], atol=1e-6)


def test_knn_with_fewer_references_than_neighbours_takes_all():
    votes = knn_probabilities(
        np.eye(2), np.eye(2), np.array([0, 1]), num_classes=2, num_neighbors=20
    )
    assert votes.argmax(1).tolist() == [0, 1]
    with pytest.raises(ValueError, match="got 0 and 20"):
        knn_probabilities(np.eye(2), np.eye(2), np.array([0, 1]), num_classes=2, temperature=0)


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def softmax(values):
    shares = np.exp(np.array(values) - np.max(values))
    return shares / shares.sum()


def test_prototypes_are_the_mean_directions_of_the_classes():
    rng = np.random.default_rng(1)
    # Lengths that differ: a mean of rows as they are would point elsewhere.
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


@pytest.mark.parametrize("classify", [prototype_probabilities, soft_neighbor_probabilities])
def test_classifiers_on_references_refuse_what_they_cannot_use(classify):
    with pytest.raises(ValueError, match="got 0 and 2"):
        classify(np.eye(2), np.eye(2), np.array([0, 1]), num_classes=2, temperature=0)
    with pytest.raises(ValueError, match=r"got 0\.1 and 0"):
        classify(np.eye(2), np.zeros((0, 2)), np.zeros(0, int), num_classes=2)


COLUMN = np.array([[2], [0], [2], [1]], np.uint8)  # As keras.datasets.cifar10 gives labels.


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_a_column_of_class_numbers_counts_like_a_row(dtype):
    scores, column = np.random.default_rng(0).normal(size=(4, 3)), COLUMN.astype(dtype)
    for measure in (top_k_accuracy, mean_per_class_accuracy):
        assert measure(scores, column) == measure(scores, np.array([2, 0, 2, 1]))
    for classify in (knn_probabilities, prototype_probabilities, soft_neighbor_probabilities):
        given, expected = (
            classify(scores, scores, labels, num_classes=3)
            for labels in (column, np.array([2, 0, 2, 1]))
        )
        np.testing.assert_array_equal(given, expected)


def test_labels_that_are_no_class_numbers_are_named():
    rows = np.eye(3)[COLUMN[:, 0]]
    message = r"labels must be integers \[n\] or \[n, 1\], got float64 of shape \(4, 3\): .*argmax"
    for measure in (top_k_accuracy, mean_per_class_accuracy):
        with pytest.raises(ValueError, match=message):
            measure(rows, rows)
    for classify in (prototype_probabilities, soft_neighbor_probabilities):
        with pytest.raises(ValueError, match=message):
            classify(rows, rows, rows, num_classes=3)
    with pytest.raises(ValueError, match=r"rows \[m, 4\] of num_classes, got shape \(4, 3\)"):
        knn_probabilities(rows, rows, rows, num_classes=4)


@pytest.mark.parametrize("classify", [knn_probabilities, soft_neighbor_probabilities])
def test_no_row_of_classes_is_made_for_every_reference(classify, monkeypatch):
    made, one_hot = [], tf.one_hot

    def counting(*args):
        made.append(one_hot(*args))
        return made[-1]

    monkeypatch.setattr(tf, "one_hot", counting)
    references = np.random.default_rng(0).normal(size=(60, 5))
    options = {"num_neighbors": 3} if classify is knn_probabilities else {}
    classify(references[:2], references, np.arange(60), num_classes=60, **options)
    assert sum(rows.shape.num_elements() for rows in made) <= 2 * 3 * 60


def test_predict_runs_every_batch_in_inference_mode():
    images = keras.Input((4,))
    dropped = keras.layers.Dropout(0.9)(images)
    model = keras.Model(images, {"same": dropped})
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    batches = tf.data.Dataset.from_tensor_slices((rows, np.arange(5))).batch(2)
    outputs, labels = predict(model, batches, num_batches=3, description="testing")
    np.testing.assert_array_equal(outputs["same"], rows)
    assert labels.tolist() == [0, 1, 2, 3, 4]
