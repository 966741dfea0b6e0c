"""Approximate nearest neighbours: a graph of usearch (HNSW)."""

from pathlib import Path
from typing import Any

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.search.nearest import blocks, by_similarity, nearest

# Candidates that a query visits. usearch's default of 64 finds fewer of the true neighbours.
_EXPANSION = 128
# Up to this many rows are added by one thread, which takes a fraction of a second, so that their
# graph is always the same.
_FEW_ROWS = 1000


class Graph:
    """An HNSW graph over rows with ascending keys.

    Malkov and Yashunin 2016, "Efficient and robust approximate nearest neighbor search using
    Hierarchical Navigable Small World graphs". Many rows are added by all threads, whose
    order changes the graph, and with it a few of the neighbours.

    Args:
      dimension: of the rows.

    Raises:
      UserError: usearch is not installed.
    """

    def __init__(self, dimension: int):
        try:
            from usearch.index import Index
        except ImportError:
            raise UserError(
                "an approximate index needs usearch: pip install '.[search]', or set approximate "
                "to False for exact search"
            ) from None
        self._graph: Any = Index(
            ndim=dimension, metric="ip", dtype="f32", expansion_search=_EXPANSION
        )

    def add(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Adds rows float32 [n, D] of unit length under new keys int64 [n]."""
        threads = 1 if len(rows) <= _FEW_ROWS else 0  # 0 for all.
        self._graph.add(keys.astype(np.uint64), rows, threads=threads)

    def remove(self, keys: np.ndarray) -> None:
        """Removes the rows of these keys."""
        self._graph.remove(keys.astype(np.uint64))

    def nearest(
        self, rows: np.ndarray, references: np.ndarray, keys: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `nearest.nearest`, but some neighbours may be missed in favour of farther ones.

        Args:
          rows: float32 [q, D] of unit length.
          references: float32 [n, D], the rows of the graph.
          keys: int64 [n], their ascending keys.
          k: number of neighbours; all n if there are fewer.
        """
        k = min(k, len(references))
        if not k:
            return nearest(rows, references, k)
        similarities = np.empty((len(rows), k), np.float32)
        positions = np.empty((len(rows), k), np.int64)
        for part in blocks(len(rows), entries_per_row=max(1, k) * rows.shape[1]):
            # Of a single row, usearch returns vectors without their number.
            answer = self._graph.search(np.concatenate([rows[part], rows[:1]]), k)
            candidates = np.searchsorted(keys, answer.keys[:-1].astype(np.int64))
            candidates = np.minimum(candidates, len(keys) - 1)
            # The graph's own similarities are rounded in another way than those of `nearest`.
            exact = np.einsum("qd,qkd->qk", rows[part], references[candidates])
            similarities[part], positions[part] = by_similarity(exact, candidates)
            # Where the graph ends before k neighbours, as after many removals.
            for row in part.start + np.flatnonzero(answer.counts[:-1] < k):
                one = nearest(rows[row : row + 1], references, k)
                similarities[row], positions[row] = one[0][0], one[1][0]
        return similarities, positions

    def save(self, file: Path) -> None:
        """Writes the graph with its rows."""
        self._graph.save(str(file))

    def load(self, file: Path, *, num_rows: int) -> None:
        """Reads what `save` wrote.

        Raises:
          UserError: a damaged file, or one with another number of rows.
        """
        try:
            self._graph.load(str(file))
        except (RuntimeError, OSError) as error:
            raise UserError(f"{str(file)!r} is damaged ({error}): build the index again") from None
        if len(self._graph) != num_rows:
            raise UserError(
                f"{str(file)!r} has {len(self._graph)} rows instead of {num_rows}: build the index "
                "again"
            )
