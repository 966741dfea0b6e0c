"""Scores that are high for images of no known class."""

import dataclasses

import numpy as np

from supcon_tf.search.nearest import blocks

# Lowest share of the identity in the covariance, so that it can be inverted.
_LOWEST_SHRINKAGE = 1e-6


@dataclasses.dataclass(frozen=True)
class ClassStatistics:
    """Class means and the inverse of the covariance within classes.

    Args:
      means: float64 [C, D].
      whitening: float64 [D, D], a matrix W with W W^T = Sigma^-1.
    """

    means: np.ndarray
    whitening: np.ndarray

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to the nearest class mean, [n, D] -> float64 [n]."""
        centers = self.means @ self.whitening
        nearest = np.empty(len(rows))
        for part in blocks(len(rows), entries_per_row=max(centers.shape)):
            whitened = rows[part].astype(np.float64) @ self.whitening
            # ||y - m||^2 = ||y||^2 + ||m||^2 - 2 y m
            squares = np.square(centers).sum(axis=1) - 2 * whitened @ centers.T  # [n, C]
            nearest[part] = squares.min(axis=1) + np.square(whitened).sum(axis=1)
        return np.maximum(nearest, 0)


def class_statistics(rows: np.ndarray, labels: np.ndarray) -> ClassStatistics:
    """Fits the statistics of the Mahalanobis score.

    The score of an embedding z of unit length is

        min_c (z - mu_c)^T Sigma^-1 (z - mu_c)

    with the mean mu_c of each class, as SSD+ (Sehwag et al. 2021, "SSD: A Unified Framework for
    Self-Supervised Outlier Detection", eq. 2 with the classes as clusters). SSD has a covariance
    for each cluster, which takes many more images of each class than D. Here all classes share

        Sigma = (1 - delta) S + delta trace(S) / D I,    S = 1 / n sum_i (z_i - mu_{y_i}) (...)^T

    as in Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks"; delta is the shrinkage of Ledoit and Wolf 2004, "A well-conditioned
    estimator for large-dimensional covariance matrices", and at least 1e-6. If each image is its
    class mean, Sigma is the identity.

    Args:
      rows: [n, D] of unit length.
      labels: integers [n].

    Example:
      >>> import numpy as np
      >>> from supcon_tf.search import class_statistics
      >>> rows = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, -1.0], [-0.6, -0.8]])
      >>> statistics = class_statistics(rows, np.array([0, 0, 1, 1]))
      >>> statistics.means.round(6).tolist()
      [[0.9, 0.3], [-0.3, -0.9]]
      >>> far = statistics.distances(np.array([[-1.0, 0.0]]))
      >>> bool(far > statistics.distances(rows).max())
      True
    """
    rows = rows.astype(np.float64)
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), rows.shape[1]))
    np.add.at(means, numbers, rows)
    means /= counts[:, None]
    within = rows - means[numbers]
    return ClassStatistics(means, np.linalg.cholesky(np.linalg.inv(_covariance(within))))


def _covariance(centered: np.ndarray) -> np.ndarray:
    """The shrunk covariance of centered rows [n, D]."""
    count, dimension = centered.shape
    sample = centered.T @ centered / count
    mean_variance = np.trace(sample) / dimension
    if mean_variance == 0:
        return np.eye(dimension)
    squared_norm = np.square(sample).sum()
    # sum_i ||x_i x_i^T - S||^2 / n^2 and ||S - mean_variance I||^2
    noise = (np.square(np.square(centered).sum(axis=1)).sum() / count - squared_norm) / count
    spread = squared_norm - dimension * mean_variance**2
    shrinkage = noise / spread if spread > noise else 1.0
    shrinkage = max(shrinkage, _LOWEST_SHRINKAGE)
    return (1 - shrinkage) * sample + shrinkage * mean_variance * np.eye(dimension)
