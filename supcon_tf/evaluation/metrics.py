"""How often the right class is among the best scored."""

from typing import Any, Literal, get_args

import numpy as np

from supcon_tf.errors import UserError


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, *, k: int = 1) -> float:
    """Share of examples whose class is among the k best scored.

    Of equal scores the lower class number counts as the better one, so that constant scores are
    no better than chance.

    Args:
      scores: [n, C], larger is likelier.
      labels: integers [n] or [n, 1].
      k: how many guesses count; more than C is C.

    Raises:
      UserError: k < 1, no example, or labels of another shape or of floats.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import top_k_accuracy
      >>> top_k_accuracy(np.array([[0.1, 0.7, 0.2], [0.5, 0.4, 0.1]]), np.array([1, 1]))
      0.5
    """
    labels = class_numbers(labels)
    if k < 1 or not len(labels):
        raise UserError(f"k must be >= 1 and n >= 1, got k={k} and n={len(labels)}")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean(np.any(best == labels[:, None], axis=1)))


def mean_per_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of the top-1 accuracy on their examples, whatever their number.

    The measure of Pets, Caltech-101, Flowers and Aircraft in transfer; equal scores as in
    `top_k_accuracy`.

    Args:
      scores: [n, C], larger is likelier.
      labels: integers [n] or [n, 1]; classes without an example are left out.

    Raises:
      UserError: no example, or labels of another shape or of floats.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import mean_per_class_accuracy
      >>> scores = np.array([[1, 0], [1, 0], [1, 0], [1, 0]])
      >>> mean_per_class_accuracy(scores, np.array([0, 0, 0, 1]))
      0.5
    """
    labels = class_numbers(labels)
    if not len(labels):
        raise UserError("n must be >= 1, got no example")
    is_right = np.argmax(scores, axis=1) == labels
    return float(np.mean([is_right[labels == c].mean() for c in np.unique(labels)]))


Interpolation = Literal["11_points", "none"]


def mean_average_precision(
    scores: np.ndarray, targets: np.ndarray, *, interpolation: Interpolation = "11_points"
) -> float:
    """Mean over the classes of `average_precisions`.

    Args:
      scores, targets, interpolation: as there.

    Returns:
      Within [0, 1]; classes without an image are left out.

    Raises:
      UserError: as there, or no class with an image.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import mean_average_precision
      >>> scores = np.array([[0.9], [0.8], [0.7]])
      >>> round(mean_average_precision(scores, np.array([[1], [0], [1]])), 4)  # (6 + 5 * 2/3) / 11
      0.8485
    """
    values = average_precisions(scores, targets, interpolation=interpolation)
    if np.isnan(values).all():
        raise UserError("targets must have at least one image of a class, got none")
    return float(np.nanmean(values))


def average_precisions(
    scores: np.ndarray, targets: np.ndarray, *, interpolation: Interpolation = "11_points"
) -> np.ndarray:
    """Of each class, the average precision of ranking the images by its score.

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
      float64 [C], within [0, 1]; NaN for a class without an image.

    Raises:
      UserError: an unknown interpolation, or other shapes or numbers.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import average_precisions
      >>> scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
      >>> targets = np.array([[1, 0], [0, 0], [1, 1]])
      >>> average_precisions(scores, targets, interpolation="none").round(4).tolist()
      [0.8333, 1.0]
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets)
    if interpolation not in get_args(Interpolation):
        raise UserError(
            f"interpolation must be one of {get_args(Interpolation)}, got {interpolation!r}"
        )
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise UserError(
            f"scores and targets must both be [n, C], got {scores.shape} and {targets.shape}"
        )
    if not np.isin(targets, (0, 1)).all() or not np.isfinite(scores).all():
        raise UserError("targets must be 0 or 1 and scores finite")
    average = _at_11_points if interpolation == "11_points" else _step_sum
    values = np.full(targets.shape[1], np.nan)
    for c in np.flatnonzero(targets.any(axis=0)):
        values[c] = average(*_curve(scores[:, c], targets[:, c]))
    return values


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


def class_numbers(labels: Any) -> np.ndarray:
    """Integers of any size [n], or a column of them [n, 1] -> int64 [n].

    Raises:
      UserError: another rank or shape, or floats.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation.metrics import class_numbers
      >>> class_numbers(np.array([[3], [1]], np.uint8)).tolist()
      [3, 1]
    """
    numbers = np.asarray(labels)
    is_column = numbers.ndim == 2 and numbers.shape[1] == 1
    if numbers.dtype.kind not in "biu" or not (numbers.ndim == 1 or is_column):
        raise UserError(
            f"labels must be integers [n] or [n, 1], got {numbers.dtype} of shape "
            f"{numbers.shape}: of one-hot rows take labels.argmax(axis=1)"
        )
    return numbers.reshape(-1).astype(np.int64)
