"""Unit-length embeddings and their nearest neighbours by matrix products."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from supcon_tf.errors import UserError

# Entries of a block of similarities: 64 MiB of float32.
_ENTRIES_PER_BLOCK = 2**24


def unit_rows(values: Any, *, dimension: int | None = None) -> np.ndarray:
    """Embeddings scaled to unit length; rows of zeros stay zeros.

    Args:
      values: numbers [n, D].
      dimension: the expected D; None for any.

    Returns:
      float32 [n, D].

    Raises:
      UserError: no numbers, another shape or dimension, or embeddings that are not finite.

    Example:
      >>> from supcon_tf.search.nearest import unit_rows
      >>> unit_rows([[3.0, 4.0]]).tolist()
      [[0.6000000238418579, 0.800000011920929]]
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise UserError("the rows of embeddings must have the same length") from None
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "iuf":
        raise UserError(
            f"embeddings must be numbers [n, D] with D >= 1, got {array.dtype} of shape "
            f"{array.shape}"
        )
    if dimension is not None and array.shape[1] != dimension:
        raise UserError(
            f"the index has embeddings of {dimension} numbers, got {array.shape[1]}: use the model "
            "that the index was made with"
        )
    rows = array.astype(np.float32)
    is_finite = np.isfinite(rows).all(axis=1)
    if not is_finite.all():
        raise UserError(
            f"embeddings must be finite, got {(~is_finite).sum()} of {len(rows)} rows that are "
            f"not, first row {is_finite.argmin()}"
        )
    # Dividing by the largest entry first avoids overflow and underflow of the squares.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def nearest(rows: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k references with the highest cosine similarity, the most similar first.

    Args:
      rows: float32 [q, D] of unit length.
      references: float32 [n, D] of unit length.
      k: number of neighbours; all n if there are fewer.

    Returns:
      Similarities float32 [q, k] within [-1, 1], and positions int64 [q, k] in `references`.
    """
    k = min(k, len(references))
    similarities = np.empty((len(rows), k), np.float32)
    positions = np.empty((len(rows), k), np.int64)
    if k:
        for part in blocks(len(rows), entries_per_row=len(references)):
            block = rows[part] @ references.T  # [b, n]
            candidates = np.argpartition(block, -k, axis=1)[:, -k:]
            similarities[part], positions[part] = by_similarity(
                np.take_along_axis(block, candidates, axis=1), candidates
            )
    return similarities, positions


def distances(similarities: np.ndarray) -> np.ndarray:
    """Cosine similarities -> Euclidean distances of unit-length embeddings, within [0, 2]."""
    return np.sqrt(np.maximum(0, 2 - 2 * similarities))


def by_similarity(similarities: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts each row [k], the most similar first; of equal ones the lower position first."""
    order = np.lexsort((positions, -similarities), axis=1)
    similarities = np.take_along_axis(similarities, order, axis=1)
    return np.clip(similarities, -1, 1), np.take_along_axis(positions, order, axis=1)


def blocks(count: int, *, entries_per_row: int) -> Iterator[slice]:
    """Slices of 0 ... count - 1 whose matrices fit into little memory."""
    size = max(1, _ENTRIES_PER_BLOCK // max(1, entries_per_row))
    for start in range(0, count, size):
        yield slice(start, start + size)
