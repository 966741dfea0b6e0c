"""Measures of projections on the sphere: are positives near each other, and is the sphere used?"""

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from supcon_tf.errors import UserError
from supcon_tf.evaluation.metrics import as_array


def projection_measures(projections: np.ndarray, labels: Any = None) -> dict[str, float]:
    """Measures of the projections of a batch; every view is a row.

    Positives are other rows that share a label. The time and memory are proportional to (N V)^2.

    Args:
      projections: float [N, V, D]; L2-normalised here.
      labels: None (every sample is its own class), integers [N] or [N, 1], or rows [N, C] of 0
        and 1.

    Returns:
      - "alignment": mean squared distance of a row and a positive, within 0 to 4; 0 if all
        positives are at one point (Wang & Isola 2020, arXiv 2005.10242). Missing without positives.
      - "uniformity": log of the mean of exp(-2 squared distance) over all pairs of rows, within -8
        to 0; lower is more uniform, 0 if all rows are at one point (same source).
      - "effective_rank": exp of the entropy of the normalised singular values, within 1 to D; 1 if
        all rows are at one point (Roy & Vetterli 2007, "The Effective Rank").
      - "contrastive_accuracy": share of rows whose nearest other row is a positive.
      - "anchors_without_positive": share of samples that share no label with another sample.
        Missing without labels.

    Raises:
      UserError: another shape, a single row, another number of labels, or other entries.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import projection_measures
      >>> measures = projection_measures(np.array([[[1., 0.], [1., 0.]], [[0., 1.], [0., 1.]]]))
      >>> round(measures["effective_rank"], 6), measures["contrastive_accuracy"]
      (2.0, 1.0)
    """
    projections = as_array("projections", projections)
    if projections.ndim != 3 or len(projections) * projections.shape[1] < 2:
        raise UserError(f"projections must be [N, V, D] of 2 or more rows, got {projections.shape}")
    num_samples, num_views, dim = projections.shape
    rows = projections.reshape(-1, dim).astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    is_other = ~np.eye(len(rows), dtype=bool)
    shares_label = _shares_label(labels, num_samples)
    positives = np.repeat(np.repeat(shares_label, num_views, axis=0), num_views, axis=1)
    positives &= is_other
    # The squared length is 1, or 0 for a row of zeros.
    squares = np.square(rows).sum(axis=1)
    squared_distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
    nearest = np.where(is_other, squared_distances, np.inf).argmin(axis=1)
    # Between training steps, threads of BLAS and TensorFlow would wait for each other.
    with threadpool_limits(1):
        singular_values = np.linalg.svd(rows, compute_uv=False)
    shares = singular_values[singular_values > 0] / singular_values.sum()
    measures = {
        "contrastive_accuracy": float(np.mean(positives[np.arange(len(rows)), nearest])),
        "effective_rank": float(np.exp(-np.sum(shares * np.log(shares)))),
        "uniformity": float(np.log(np.mean(np.exp(-2 * squared_distances[is_other])))),
    }
    if positives.any():
        measures["alignment"] = float(np.mean(squared_distances[positives]))
    if labels is not None:
        others = shares_label & ~np.eye(num_samples, dtype=bool)
        measures["anchors_without_positive"] = float(np.mean(~others.any(axis=1)))
    return measures


def _shares_label(labels: Any, num_samples: int) -> np.ndarray:
    """Whether two samples share a label, bool [N, N]."""
    if labels is None:
        return np.eye(num_samples, dtype=bool)
    labels = as_array("labels", labels)
    if labels.ndim not in (1, 2) or len(labels) != num_samples:
        raise UserError(
            f"labels must be [N] or [N, C] with N = {num_samples}, got shape {labels.shape}"
        )
    if labels.ndim == 1 or labels.shape[1] == 1:
        numbers = labels.reshape(-1)
        return numbers[:, None] == numbers[None, :]
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"label rows [N, C] must be 0 or 1, got {labels.min()} to {labels.max()}")
    rows = labels.astype(np.int64)
    return rows @ rows.T > 0
