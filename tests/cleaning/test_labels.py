"""Label errors by the rule of confident learning, and class overlaps, against loops."""

import numpy as np
import pytest

from supcon_tf.cleaning import class_overlaps, label_errors, neighbor_probabilities


def test_neighbor_probabilities_equal_a_loop():
    rng = np.random.default_rng(0)
    similarities = np.sort(rng.uniform(-1, 1, (6, 5)).astype(np.float32))[:, ::-1]
    labels = rng.integers(0, 3, (6, 5))
    expected = np.zeros((6, 3))
    for i in range(6):
        for j in range(5):
            expected[i, labels[i, j]] += np.exp(np.float64(similarities[i, j]) / 0.07)
        expected[i] /= sum(expected[i])
    found = neighbor_probabilities(similarities, labels, num_classes=3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def confident_learning(probabilities, labels):
    """Image -> suggested label, class by class and image by image."""
    num_classes = len(probabilities[0])
    thresholds = []
    for c in range(num_classes):
        own = [row[c] for row, label in zip(probabilities, labels, strict=True) if label == c]
        thresholds.append(sum(own) / len(own))
    joint = [[0] * num_classes for _ in range(num_classes)]
    for row, label in zip(probabilities, labels, strict=True):
        confident = [c for c in range(num_classes) if row[c] >= thresholds[c]]
        if confident:
            joint[label][max(confident, key=lambda c: row[c])] += 1
    found = {}
    for y in range(num_classes):
        members = [i for i, label in enumerate(labels) if label == y]
        for j in range(num_classes):
            count = round(len(members) * joint[y][j] / sum(joint[y]))
            by_margin = sorted(members, key=lambda i: probabilities[i][y] - probabilities[i][j])
            for i in by_margin[:count]:
                margin = probabilities[i][j] - probabilities[i][y]
                if j != y and margin > 0:
                    found[i] = max(found.get(i, (0, 0)), (margin, j))
    return {i: j for i, (_, j) in found.items()}


def test_label_errors_equal_a_loop():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 120)
    probabilities = rng.dirichlet([0.3] * 4, 120)
    found = label_errors(probabilities, labels)
    assert {each.image: each.suggestion for each in found} == confident_learning(
        probabilities, labels
    )
    assert 10 < len(found) < 110
    margins = [
        probabilities[e.image, e.suggestion] - probabilities[e.image, labels[e.image]]
        for e in found
    ]
    assert [each.margin for each in found] == margins == sorted(margins, reverse=True)
    assert [each.label for each in found] == labels[[each.image for each in found]].tolist()


def test_a_class_without_images_is_never_suggested():
    probabilities = np.array([[0.2, 0.0, 0.8], [0.9, 0.0, 0.1]])
    assert label_errors(probabilities, np.array([0, 0])) == []


def test_class_overlaps_are_mean_probabilities_of_the_other_class():
    probabilities = np.array(
        [[0.6, 0.4, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.0, 0.004, 0.996]]
    )
    pairs = class_overlaps(probabilities, np.array([0, 0, 1, 2]))
    # ((0.4 + 0.2) / 2 + 0.1) / 2; the pair of classes 1 and 2 is below 1 %.
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1)]
    assert pairs[0].share == pytest.approx(0.2)
