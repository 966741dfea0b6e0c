"""Image retrieval on one set of embeddings: each image is compared with all others."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from supcon_tf.errors import UserError, check_integer
from supcon_tf.evaluation.knn import embedding_rows
from supcon_tf.evaluation.metrics import class_numbers

# Cosines that agree to this many decimals are equal; float64 products differ by less.
_DECIMALS = 9
# Cosines at a time, 64 MB.
_MAX_BLOCK = 2**23

# Cosines [b, n] and whether the image is another one of the class [b, n] -> values [b].
BlockMeasure = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """A retrieval measure.

    Args:
      mean: over the images whose class has another image.
      per_image: float64 [n - left_out], values of these images in their order.
      left_out: number of images that are the only one of their class. They are still among the
        images that others are compared with.
    """

    mean: float
    per_image: np.ndarray
    left_out: int


def recall_at_k(embeddings: np.ndarray, labels: np.ndarray, *, k: int = 1) -> Retrieval:
    """Share of images with another image of their class among the k nearest others.

    Nearest by cosine similarity. Of equally similar images, those of other classes come first, so
    that a collapsed embedding has no recall. Jegou et al. 2011, "Product Quantization for Nearest
    Neighbor Search"; with labels as in Oh Song et al. 2016, "Deep Metric Learning via Lifted
    Structured Feature Embedding".

    Args:
      embeddings: [n, D].
      labels: integers [n] or [n, 1].
      k: number of nearest images.

    Raises:
      UserError: k < 1, no class with two images, shapes that disagree, or embeddings that are not
        finite.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import recall_at_k
      >>> embeddings = np.array([[1, 0], [0.9, 0.1], [0.8, 0.3], [0, 1], [-1, 0]])
      >>> found = recall_at_k(embeddings, np.array([0, 0, 1, 1, 2]))
      >>> found.mean, found.per_image.tolist(), found.left_out
      (0.75, [1.0, 1.0, 0.0, 1.0], 1)
    """
    check_integer("k", k, at_least=1)
    return retrieve(embeddings, labels, [functools.partial(_recalls, k=k)])[0]


def mean_average_precision_at_r(embeddings: np.ndarray, labels: np.ndarray) -> Retrieval:
    """Mean average precision at R (MAP@R), R being the number of other images of the class.

    1/R sum_{i=1}^{R} P(i) 1[the i-th nearest other image has the class], where P(i) is the share
    of the class among the i nearest. Musgrave et al. 2020, "A Metric Learning Reality Check".
    Similarities and ties as in `recall_at_k`.

    Args:
      embeddings: [n, D].
      labels: integers [n] or [n, 1].

    Raises:
      UserError: as `recall_at_k`.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import mean_average_precision_at_r
      >>> embeddings = np.array([[1, 0], [0.9, 0.1], [0.8, 0.3], [0.5, 0.5]])
      >>> found = mean_average_precision_at_r(embeddings, np.array([0, 0, 1, 0]))
      >>> found.per_image.tolist()  # R is 2.
      [0.5, 0.5, 0.25]
    """
    return retrieve(embeddings, labels, [_average_precisions_at_r])[0]


def retrieval_measures(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, Retrieval]:
    """Recall at 1 and MAP@R in one pass over the similarities.

    Raises:
      UserError: as `recall_at_k`.
    """
    recall, precision = retrieve(
        embeddings, labels, [functools.partial(_recalls, k=1), _average_precisions_at_r]
    )
    return {"recall_at_1": recall, "mean_average_precision_at_r": precision}


def retrieve(embeddings: Any, labels: Any, measures: Sequence[BlockMeasure]) -> list[Retrieval]:
    """The measures of all images that have another one of their class."""
    rows = _unit_rows(embeddings)
    numbers = class_numbers(labels)
    if len(numbers) != len(rows):
        raise UserError(
            f"labels must have one entry for each of {len(rows)} embeddings, got {len(numbers)}"
        )
    _, class_of, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    queries = np.flatnonzero(sizes[class_of] > 1)
    if not len(queries):
        raise UserError(f"labels must have a class with two images, got {len(rows)} classes")
    blocks = []
    for block in np.array_split(queries, -(-len(queries) * len(rows) // _MAX_BLOCK)):
        cosines = np.round(rows[block] @ rows.T, _DECIMALS)
        is_positive = class_of[block, None] == class_of
        each = np.arange(len(block))
        cosines[each, block], is_positive[each, block] = -np.inf, False
        blocks.append([measure(cosines, is_positive) for measure in measures])
    values = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    return [Retrieval(float(each.mean()), each, len(rows) - len(queries)) for each in values]


def _recalls(cosines: np.ndarray, is_positive: np.ndarray, *, k: int) -> np.ndarray:
    nearest = np.where(is_positive, cosines, -np.inf).max(axis=1, keepdims=True)
    negatives_before = ((cosines >= nearest) & ~is_positive).sum(axis=1)
    return (negatives_before < k).astype(np.float64)


def _average_precisions_at_r(cosines: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    values = np.empty(len(cosines))
    for i, (row, positive) in enumerate(zip(cosines, is_positive, strict=True)):
        r = int(positive.sum())
        nearest = np.flatnonzero(row >= np.partition(row, -r)[-r])
        order = np.lexsort((positive[nearest], -row[nearest]))[:r]
        hits = positive[nearest][order]
        values[i] = (np.cumsum(hits) / np.arange(1, r + 1))[hits].sum() / r
    return values


def _unit_rows(embeddings: Any) -> np.ndarray:
    """float64 rows of length 1; a row of zeros stays."""
    rows = embedding_rows("embeddings", embeddings).astype(np.float64)
    is_finite = np.isfinite(rows).all(axis=1)
    if not is_finite.all():
        raise UserError(
            f"embeddings must be finite, got {(~is_finite).sum()} of {len(rows)} rows that are "
            f"not, first row {is_finite.argmin()}"
        )
    # Dividing by the largest entry first avoids underflow and overflow of the squares.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.where(largest > 0, largest, 1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
