"""Accuracies and average precisions of class scores."""

from typing import Any, Literal, get_args

import numpy as np

from supcon_tf.errors import UserError, check_choice, check_integer


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, *, k: int = 1) -> float:
    """Fraction of examples whose class is among the k highest scores.

    Ties are broken in favour of the lower class number, so that constant scores are no better than
    chance.

    Args:
      scores: [n, C], larger is likelier.
      labels: integers [n] or [n, 1], from 0 to C - 1.
      k: number of guesses; the result is 1 when k >= C.

    Raises:
      UserError: k < 1, no examples, NaN scores, or labels of another shape, dtype or range.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import top_k_accuracy
      >>> top_k_accuracy(np.array([[0.1, 0.7, 0.2], [0.5, 0.4, 0.1]]), np.array([1, 1]))
      0.5
    """
    scores, labels = scores_and_labels(scores, labels)
    check_integer("k", k, at_least=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean(np.any(best == labels[:, None], axis=1)))


def mean_per_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of the top-1 accuracy on the examples of a class.

    The measure of Pets, Caltech-101, Flowers and Aircraft in transfer learning. Ties are broken as
    in `top_k_accuracy`.

    Args:
      scores: [n, C], larger is likelier.
      labels: integers [n] or [n, 1], from 0 to C - 1; classes without examples are left out.

    Raises:
      UserError: no examples, NaN scores, or labels of another shape, dtype or range.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import mean_per_class_accuracy
      >>> scores = np.array([[1, 0], [1, 0], [1, 0], [1, 0]])
      >>> mean_per_class_accuracy(scores, np.array([0, 0, 0, 1]))
      0.5
    """
    return float(np.mean(_per_class_accuracies(scores, labels)))


def worst_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Lowest top-1 accuracy of a class; arguments and errors as in `mean_per_class_accuracy`.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import worst_class_accuracy
      >>> scores = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
      >>> worst_class_accuracy(scores, np.array([0, 0, 1, 1]))
      0.5
    """
    return float(np.min(_per_class_accuracies(scores, labels)))


def _per_class_accuracies(scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """Top-1 accuracy of each class that has examples."""
    scores, labels = scores_and_labels(scores, labels)
    is_right = np.argmax(scores, axis=1) == labels
    return [is_right[labels == c].mean() for c in np.unique(labels)]


Interpolation = Literal["11_points", "none"]


def mean_average_precision(
    scores: np.ndarray, targets: np.ndarray, *, interpolation: Interpolation = "11_points"
) -> float:
    """Mean of `average_precisions` over the classes that have images.

    Args:
      scores: [n, C], larger is likelier.
      targets: [n, C] of 0 and 1.
      interpolation: "11_points" or "none". Defaults to "11_points".

    Returns:
      A number within [0, 1].

    Raises:
      UserError: as `average_precisions`, or no class has an image.

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
    """Average precision of each class when its scores rank the images.

    With P_n and R_n precision and recall of the n highest scores, the average precision is
    sum_n (R_n - R_{n-1}) P_n ("none", as in scikit-learn), or the mean over the recalls r = 0,
    0.1, ... 1 of the largest P_n with R_n >= r ("11_points", the measure of VOC 2007; Everingham et
    al. 2010, "The Pascal Visual Object Classes (VOC) Challenge"). Images with equal scores enter
    the ranking together.

    Args:
      scores: [n, C], larger is likelier.
      targets: [n, C] of 0 and 1; an image may have several classes or none.
      interpolation: "11_points" or "none". Defaults to "11_points".

    Returns:
      float64 [C], within [0, 1]; NaN for a class without images.

    Raises:
      UserError: unknown interpolation, no examples, shapes that disagree, targets other than 0 and
        1, or scores that are not finite.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import average_precisions
      >>> scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
      >>> targets = np.array([[1, 0], [0, 0], [1, 1]])
      >>> average_precisions(scores, targets, interpolation="none").round(4).tolist()
      [0.8333, 1.0]
    """
    check_choice("interpolation", interpolation, get_args(Interpolation))
    scores, targets = score_rows(scores), as_array("targets", targets)
    if scores.shape != targets.shape:
        raise UserError(
            f"scores and targets must both be [n, C], got {scores.shape} and {targets.shape}"
        )
    if not np.isfinite(scores).all():
        raise UserError(f"scores must be finite, got {scores[~np.isfinite(scores)][0]}")
    is_other = ~np.isin(targets, (0, 1))
    if is_other.any():
        raise UserError(f"targets must be 0 or 1, got {targets[is_other][0]}")
    average = _eleven_point_average if interpolation == "11_points" else _area
    values = np.full(targets.shape[1], np.nan)
    for c in np.flatnonzero(targets.any(axis=0)):
        values[c] = average(*_precision_recall(scores[:, c], targets[:, c]))
    return values


def _precision_recall(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at each distinct score, from the highest one down."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    right = np.cumsum(targets[order])[last_of_ties]
    return right / (np.flatnonzero(last_of_ties) + 1), right / right[-1]


def _eleven_point_average(precision: np.ndarray, recall: np.ndarray) -> float:
    # The margin allows for rounding: a recall of 3 / 10 is less than 0.3.
    points = np.arange(11) / 10 - 1e-9
    return float(np.mean([precision[recall >= point].max() for point in points]))


def _area(precision: np.ndarray, recall: np.ndarray) -> float:
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def as_array(name: str, values: Any) -> np.ndarray:
    """Nested lists or an array as an array.

    Raises:
      UserError: rows of different lengths.
    """
    try:
        return np.asarray(values)
    except ValueError:
        raise UserError(f"the rows of {name} must have the same length") from None


def score_rows(scores: Any, name: str = "scores") -> np.ndarray:
    """Checks scores [n, C] and returns them as floats.

    Raises:
      UserError: another rank or dtype, no examples, no classes, or NaN.
    """
    rows = as_array(name, scores)
    if rows.ndim != 2 or rows.dtype.kind not in "biuf" or not rows.size:
        raise UserError(
            f"{name} must be numbers [n, C] with n >= 1 and C >= 1, got {rows.dtype} of shape "
            f"{rows.shape}"
        )
    rows = rows.astype(np.float64)
    is_nan = np.isnan(rows).any(axis=1)
    if is_nan.any():
        raise UserError(
            f"{name} must be numbers, got NaN in {is_nan.sum()} of {len(rows)} rows, first in row "
            f"{is_nan.argmax()}"
        )
    return rows


def scores_and_labels(
    scores: Any, labels: Any, *, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray]:
    """Checks that scores and labels belong together: float64 [n, C], int64 [n].

    Raises:
      UserError: as `score_rows` and `class_numbers`, or another number of labels than of scores.
    """
    rows = score_rows(scores, name)
    numbers = class_numbers(labels, num_classes=rows.shape[1])
    if len(numbers) != len(rows):
        raise UserError(f"{name} of shape {rows.shape} need {len(rows)} labels, got {len(numbers)}")
    return rows, numbers


def class_numbers(
    labels: Any, *, num_classes: int | None = None, name: str = "labels"
) -> np.ndarray:
    """Integers of any size [n], or a column of them [n, 1] -> int64 [n].

    Args:
      labels: the integers.
      num_classes: their upper limit. None accepts any integer.
      name: for error messages.

    Raises:
      UserError: another rank or shape, floats, or a number outside 0 to num_classes - 1.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation.metrics import class_numbers
      >>> class_numbers(np.array([[3], [1]], np.uint8)).tolist()
      [3, 1]
    """
    numbers = as_array(name, labels)
    is_column = numbers.ndim == 2 and numbers.shape[1] == 1
    if numbers.dtype.kind not in "biu" or not (numbers.ndim == 1 or is_column):
        raise UserError(
            f"{name} must be integers [n] or [n, 1], got {numbers.dtype} of shape "
            f"{numbers.shape}: pass labels.argmax(axis=1) for one-hot rows"
        )
    numbers = numbers.reshape(-1)
    if num_classes is not None and numbers.size:
        for number in (numbers.min(), numbers.max()):
            if not 0 <= number < num_classes:
                raise UserError(f"{name} must be within 0 to {num_classes - 1}, got {number}")
    return numbers.astype(np.int64)
