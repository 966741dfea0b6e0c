"""Accuracies, nearest neighbours and predictions against loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.evaluation import knn_probabilities, predict, top_k_accuracy


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


def test_knn_with_fewer_references_than_neighbours_takes_all():
    votes = knn_probabilities(
        np.eye(2), np.eye(2), np.array([0, 1]), num_classes=2, num_neighbors=20
    )
    assert votes.argmax(1).tolist() == [0, 1]
    with pytest.raises(ValueError, match="got 0 and 20"):
        knn_probabilities(np.eye(2), np.eye(2), np.array([0, 1]), num_classes=2, temperature=0)


def test_predict_runs_every_batch_in_inference_mode():
    images = keras.Input((4,))
    dropped = keras.layers.Dropout(0.9)(images)
    model = keras.Model(images, {"same": dropped})
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    batches = tf.data.Dataset.from_tensor_slices((rows, np.arange(5))).batch(2)
    outputs, labels = predict(model, batches, num_batches=3, description="testing")
    np.testing.assert_array_equal(outputs["same"], rows)
    assert labels.tolist() == [0, 1, 2, 3, 4]
