"""What is likely wrong with a set of images."""

import dataclasses

import numpy as np

from supcon_tf.cleaning.duplicates import DuplicatePair, duplicate_pairs
from supcon_tf.cleaning.images import AuditImages
from supcon_tf.cleaning.labels import (
    LabelError,
    Overlap,
    class_overlaps,
    label_errors,
    neighbor_probabilities,
)
from supcon_tf.errors import UserError
from supcon_tf.search.nearest import distances, nearest, unit_rows


@dataclasses.dataclass(frozen=True)
class Audit:
    """Findings, by the numbers of the images.

    Args:
      duplicates: pairs of images that look the same.
      errors: likely label errors; () without labels.
      isolated: images far from all others and their distance to the k-th neighbour, the farthest
        first.
      overlaps: pairs of classes; () without labels.
    """

    duplicates: list[DuplicatePair]
    errors: list[LabelError]
    isolated: list[tuple[int, float]]
    overlaps: list[Overlap]


def audit(images: AuditImages, *, num_neighbors: int, duplicate_similarity: float) -> Audit:
    """Finds near-duplicates, likely label errors, isolated images and overlapping classes.

    An image is isolated if its distance to the k-th neighbour is above the outer fence of all
    distances, Q3 + 3 (Q3 - Q1), with their quartiles Q1 and Q3 (Tukey 1977, "Exploratory Data
    Analysis").

    Args:
      images: from `read_images`.
      num_neighbors: k; all other images if there are fewer.
      duplicate_similarity: lowest similarity of near-duplicates.

    Raises:
      UserError: fewer than two images.
    """
    if len(images.embeddings) < 2:
        raise UserError(f"an audit needs at least two images, got {len(images.embeddings)}")
    rows = unit_rows(images.embeddings)
    similarities, positions = _other_neighbors(rows, num_neighbors)
    last = distances(similarities[:, -1])
    lower, upper = np.percentile(last, [25, 75])
    far = np.flatnonzero(last > upper + 3 * (upper - lower))
    isolated = [(int(i), float(last[i])) for i in far[np.argsort(-last[far])]]
    errors, overlaps = [], []
    if images.class_names:
        probabilities = neighbor_probabilities(
            similarities, images.labels[positions], num_classes=len(images.class_names)
        )
        errors = label_errors(probabilities, images.labels)
        overlaps = class_overlaps(probabilities, images.labels)
    return Audit(
        duplicate_pairs(images.signatures, threshold=duplicate_similarity),
        errors,
        isolated,
        overlaps,
    )


def _other_neighbors(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other rows of each row."""
    similarities, positions = nearest(rows, rows, k + 1)
    # An image with many exact copies may not be among its own nearest.
    is_self = positions == np.arange(len(rows))[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    shape = len(rows), similarities.shape[1] - 1
    return similarities[~is_self].reshape(shape), positions[~is_self].reshape(shape)
