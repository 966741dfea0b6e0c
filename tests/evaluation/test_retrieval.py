"""Retrieval measures against a loop over images."""

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.evaluation import mean_average_precision_at_r, recall_at_k, retrieval

RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.normal(size=(40, 3)).astype(np.float32)
# Classes of 1 to 12 images; two images are the only ones of their class.
LABELS = RNG.permutation(np.repeat([7, 3, 5, 9, 2, 4], [12, 11, 9, 6, 1, 1]))
MEASURES = pytest.mark.parametrize("measure", [recall_at_k, mean_average_precision_at_r])


def loop(embeddings, labels, k):
    """Recall at k and average precision at R of each image with a positive."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    recalls, precisions = [], []
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        # Negatives first among equal similarities.
        others.sort(key=lambda j: (-round(float(unit[i] @ unit[j]), 9), labels[j] == label))
        hits = [labels[j] == label for j in others]
        r = sum(hits)
        if r:
            recalls.append(float(any(hits[:k])))
            precisions.append(sum(sum(hits[: n + 1]) / (n + 1) for n in range(r) if hits[n]) / r)
    return recalls, precisions


@pytest.mark.parametrize("k", [1, 3, 100])
@pytest.mark.parametrize("decimals", [9, 0])
def test_measures_equal_the_loop(k, decimals, monkeypatch):
    # Rounded to integers, many embeddings are equal or parallel, and some are zero.
    embeddings = EMBEDDINGS.astype(np.float64).round(decimals)
    embeddings[np.linalg.norm(embeddings, axis=1) == 0] = [2, 0, 0]
    monkeypatch.setattr(retrieval, "_MAX_BLOCK", 150)  # Blocks of a few rows.
    recalls, precisions = loop(embeddings, LABELS, k)
    recall = recall_at_k(embeddings, LABELS, k=k)
    precision = mean_average_precision_at_r(embeddings, LABELS)
    assert recall.per_image.tolist() == recalls
    np.testing.assert_allclose(precision.per_image, precisions, rtol=1e-12)
    assert recall.mean == pytest.approx(np.mean(recalls))
    assert recall.left_out == precision.left_out == 2
    if k == 1:
        both = retrieval.retrieval_measures(embeddings, LABELS)
        assert both["recall_at_1"].per_image.tolist() == recalls
        assert both["mean_average_precision_at_r"].mean == precision.mean


def test_a_collapsed_embedding_retrieves_nothing():
    assert recall_at_k(np.ones((40, 3)), LABELS).mean == 0
    assert mean_average_precision_at_r(np.ones((40, 3)), LABELS).mean < 0.1
    assert recall_at_k(np.zeros((40, 3)), LABELS).mean == 0


@MEASURES
def test_separate_classes_are_retrieved_completely_at_any_scale(measure):
    for scale in (1e-30, 1e30):
        assert measure(np.eye(10, dtype=np.float32)[LABELS] * np.float32(scale), LABELS).mean == 1


@MEASURES
@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (EMBEDDINGS, LABELS[:-1], "one entry for each of 40 embeddings, got 39"),
        (EMBEDDINGS, np.arange(40), "a class with two images, got 40 classes"),
        (EMBEDDINGS, np.eye(40), r"labels must be integers \[n\] or \[n, 1\]"),
        (EMBEDDINGS[0], LABELS, r"embeddings must be numbers \[n, D\]"),
        (np.where(EMBEDDINGS > 1, np.inf, 0.0), LABELS, "embeddings must be finite, got"),
    ],
)
def test_invalid_embeddings_and_labels_are_rejected(measure, embeddings, labels, message):
    with pytest.raises(UserError, match=message):
        measure(embeddings, labels)


def test_recall_needs_a_neighbor():
    with pytest.raises(UserError, match="k must be an integer >= 1, got 0"):
        recall_at_k(EMBEDDINGS, LABELS, k=0)
