"""Nearest neighbours against loops in float64."""

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.search import nearest as nearest_module
from supcon_tf.search.graph import Graph
from supcon_tf.search.nearest import nearest, unit_rows


def brute_force(queries, references, k):
    """Cosine similarities [q, k] and positions by a loop over pairs in float64."""
    found = []
    for query in queries.astype(np.float64):
        cosines = []
        for reference in references.astype(np.float64):
            lengths = np.sqrt(sum(query**2)) * np.sqrt(sum(reference**2))
            cosines.append(sum(query * reference) / lengths)
        order = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:k]
        found.append([(cosines[i], i) for i in order])
    values = np.array(found)
    return values[..., 0], values[..., 1].astype(int)


@pytest.mark.parametrize("entries_per_block", [1, 100, 2**24])
def test_neighbors_equal_brute_force(monkeypatch, entries_per_block):
    monkeypatch.setattr(nearest_module, "_ENTRIES_PER_BLOCK", entries_per_block)
    rng = np.random.default_rng(0)
    queries, references = rng.normal(size=(7, 5)), rng.normal(size=(40, 5)) * 100
    similarities, positions = nearest(unit_rows(queries), unit_rows(references), 6)
    expected_similarities, expected_positions = brute_force(queries, references, 6)
    np.testing.assert_array_equal(positions, expected_positions)
    np.testing.assert_allclose(similarities, expected_similarities, atol=1e-6)


def test_the_graph_finds_the_neighbors_of_a_small_set_exactly():
    rng = np.random.default_rng(1)
    references, queries = unit_rows(rng.normal(size=(60, 8))), unit_rows(rng.normal(size=(9, 8)))
    keys = np.arange(60) * 3 + 5
    graph = Graph(8)
    graph.add(keys, references)
    for rows in (queries, queries[:1], queries[:0]):
        similarities, positions = graph.nearest(rows, references, keys, 4)
        expected_similarities, expected_positions = nearest(rows, references, 4)
        np.testing.assert_array_equal(positions, expected_positions)
        np.testing.assert_allclose(similarities, expected_similarities, atol=1e-6)
    # All neighbours of a graph from which most rows were removed.
    graph.remove(keys[5:])
    _, positions = graph.nearest(queries, references[:5], keys[:5], 9)
    np.testing.assert_array_equal(positions, nearest(queries, references[:5], 5)[1])


def test_equal_similarities_are_in_the_order_of_the_references():
    references = unit_rows([[0, 1], [1, 0], [1, 0], [1, 0]])
    assert nearest(unit_rows([[2, 0]]), references, 4)[1].tolist() == [[1, 2, 3, 0]]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_embeddings_get_unit_length(scale):
    rows = unit_rows(np.array([[3, 4], [0, 0]], np.float32) * np.float32(scale))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.0, 2.0], r"numbers \[n, D\] with D >= 1, got float64 of shape \(2,\)"),
        ([["a"]], "must be numbers"),
        ([[1.0], [1.0, 2.0]], "rows of embeddings must have the same length"),
        ([[1.0, 2.0], [np.nan, 0.0]], "got 1 of 2 rows that are not, first row 1"),
        ([[1.0, 2.0, 3.0]], "has embeddings of 2 numbers, got 3: use the model"),
    ],
)
def test_other_embeddings_are_rejected(values, says):
    with pytest.raises(UserError, match=says):
        unit_rows(values, dimension=2)
