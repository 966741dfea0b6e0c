"""Mahalanobis distances against a loop in float64."""

import numpy as np
import pytest

from supcon_tf.search import class_statistics
from supcon_tf.search import nearest as nearest_module
from supcon_tf.search.nearest import unit_rows


def reference_statistics(rows, labels):
    """Means and the shrunk shared covariance, image by image from the equations."""
    rows = [np.array(row, np.float64) for row in rows]
    classes = sorted(set(labels))
    means = {
        c: np.mean([r for r, k in zip(rows, labels, strict=True) if k == c], axis=0)
        for c in classes
    }
    centered = [r - means[c] for r, c in zip(rows, labels, strict=True)]
    count, dimension = len(rows), len(rows[0])
    sample = sum(np.outer(x, x) for x in centered) / count
    variance = np.trace(sample) / dimension
    # Ledoit and Wolf 2004: delta = min(b^2, d^2) / d^2.
    noise = sum(np.linalg.norm(np.outer(x, x) - sample) ** 2 for x in centered) / count**2
    spread = np.linalg.norm(sample - variance * np.eye(dimension)) ** 2
    delta = min(noise, spread) / spread
    return means, (1 - delta) * sample + delta * variance * np.eye(dimension)


@pytest.mark.parametrize("entries_per_block", [10, 2**24])
@pytest.mark.parametrize("per_class", [3, 40])
def test_distances_equal_a_loop(monkeypatch, entries_per_block, per_class):
    monkeypatch.setattr(nearest_module, "_ENTRIES_PER_BLOCK", entries_per_block)
    rng = np.random.default_rng(0)
    labels = np.arange(4 * per_class) % 4 * 10 + 2
    centers = {label: rng.normal(size=6) for label in set(labels)}
    rows = unit_rows([centers[label] + rng.normal(size=6) for label in labels])
    others = unit_rows(rng.normal(size=(9, 6)))
    means, covariance = reference_statistics(rows, labels)
    inverse = np.linalg.inv(covariance)
    expected = [
        min((z - mean) @ inverse @ (z - mean) for mean in means.values())
        for z in others.astype(np.float64)
    ]
    np.testing.assert_allclose(
        class_statistics(rows, labels).distances(others), expected, rtol=1e-9
    )


def test_shrinkage_equals_scikit_learn():
    from sklearn.covariance import ledoit_wolf

    rows = unit_rows(np.random.default_rng(1).normal(size=(30, 10)) * np.arange(1, 11))
    found = class_statistics(rows, np.zeros(30, int))
    expected, _ = ledoit_wolf(rows - rows.mean(axis=0), assume_centered=True)
    np.testing.assert_allclose(
        np.linalg.inv(found.whitening @ found.whitening.T), expected, atol=1e-6
    )


def test_one_image_of_each_class_gives_euclidean_distances():
    rows = unit_rows([[1.0, 0.0], [0.0, 1.0]])
    distances = class_statistics(rows, np.array([0, 1])).distances(unit_rows([[0.6, 0.8]]))
    np.testing.assert_allclose(distances, [0.6**2 + 0.2**2], atol=1e-6)


def test_fewer_images_than_dimensions_give_finite_distances():
    rng = np.random.default_rng(2)
    rows = unit_rows(rng.normal(size=(2, 50)))
    distances = class_statistics(rows, np.array([0, 0])).distances(
        unit_rows(rng.normal(size=(5, 50)))
    )
    assert np.isfinite(distances).all()
    assert (distances > 0).all()
