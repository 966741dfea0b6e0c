"""Mean average precision, the accuracy of images that have several labels."""

from typing import Literal, get_args

import numpy as np

Interpolation = Literal["11_points", "none"]


def mean_average_precision(
    scores: np.ndarray, targets: np.ndarray, *, interpolation: Interpolation = "11_points"
) -> float:
    """Mean over the classes of the average precision of ranking the images by a class's score.

    With P_n and R_n precision and recall of the n best scored images, a class's average precision
    is sum_n (R_n - R_{n-1}) P_n ("none", as in scikit-learn), or the mean over the recalls r = 0,
    0.1, ... 1 of the largest P_n with R_n >= r ("11_points", the measure of VOC 2007; Everingham et
    al. 2010, "The Pascal Visual Object Classes (VOC) Challenge"). Images of equal score enter a
    ranking together.

    Args:
      scores: [n, C], larger is likelier.
      targets: [n, C] of 0 and 1, an image may have several classes or none.
      interpolation: "11_points" or "none".

    Returns:
      Within [0, 1]; classes without an image are left out.

    Raises:
      ValueError: an unknown interpolation, other shapes or numbers, or no class with an image.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import mean_average_precision
      >>> scores = np.array([[0.9], [0.8], [0.7]])
      >>> round(mean_average_precision(scores, np.array([[1], [0], [1]])), 4)  # (6 + 5 * 2/3) / 11
      0.8485
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets)
    if interpolation not in get_args(Interpolation):
        raise ValueError(
            f"interpolation must be one of {get_args(Interpolation)}, got {interpolation!r}"
        )
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise ValueError(
            f"scores and targets must both be [n, C], got {scores.shape} and {targets.shape}"
        )
    if not np.isin(targets, (0, 1)).all() or not np.isfinite(scores).all():
        raise ValueError("targets must be 0 or 1 and scores finite")
    occurring = np.flatnonzero(targets.any(axis=0))
    if not occurring.size:
        raise ValueError("targets must have at least one image of a class, got none")
    average = _at_11_points if interpolation == "11_points" else _step_sum
    return float(np.mean([average(*_curve(scores[:, c], targets[:, c])) for c in occurring]))


def _curve(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of the best scored, at every distinct score from the highest on."""
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    right = np.cumsum(targets[order])[last_of_equals]
    return right / (np.flatnonzero(last_of_equals) + 1), right / right[-1]


def _at_11_points(precision: np.ndarray, recall: np.ndarray) -> float:
    # The margin is for a recall such as 3 / 10, which is less than 0.3 by rounding.
    points = np.arange(11) / 10 - 1e-9
    return float(np.mean([precision[recall >= point].max() for point in points]))


def _step_sum(precision: np.ndarray, recall: np.ndarray) -> float:
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
