"""Proper scoring rules: penalties of class probabilities that the true probabilities minimise."""

from typing import Any

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.evaluation.calibration import probability_rows
from supcon_tf.evaluation.metrics import scores_and_labels

# A float32 softmax rounds smaller probabilities to zero or loses their digits.
SMALLEST = float(np.finfo(np.float32).tiny)
# Softmax rows of float16 differ from 1 by less.
_SUM_TOLERANCE = 1e-2


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `negative_log_likelihoods`, in nats.

    Args:
      probabilities: [n, C] within [0, 1], rows sum to 1.
      labels: integers [n] or [n, 1], from 0 to C - 1.

    Raises:
      UserError: as `negative_log_likelihoods`.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import negative_log_likelihood
      >>> value = negative_log_likelihood(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0]))
      >>> round(value, 4)  # (log 2 + log 4) / 2
      1.0397
    """
    return float(negative_log_likelihoods(probabilities, labels).mean())


def negative_log_likelihoods(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each image, -log p_y with y its class (Good 1952).

    Probabilities below 1.2e-38, the smallest normal float32 number, count as this number, so that
    the result is finite.

    Args:
      probabilities: [n, C] within [0, 1], rows sum to 1.
      labels: integers [n] or [n, 1], from 0 to C - 1.

    Returns:
      float64 [n], in nats.

    Raises:
      UserError: no examples, NaN, probabilities outside [0, 1], rows that do not sum to 1, or
        labels of another shape, dtype or range.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import negative_log_likelihoods
      >>> values = negative_log_likelihoods(np.array([[0.5, 0.5], [1, 0]]), np.array([0, 0]))
      >>> values.round(4).tolist()
      [0.6931, 0.0]
    """
    rows, numbers = _distributions_and_labels(probabilities, labels)
    of_class = rows[np.arange(len(rows)), numbers]
    # Rounding may exceed 1; abs turns -0.0 into 0.0.
    return np.abs(np.log(np.clip(of_class, SMALLEST, 1.0)))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `brier_scores`.

    Args:
      probabilities: [n, C] within [0, 1], rows sum to 1.
      labels: integers [n] or [n, 1], from 0 to C - 1.

    Returns:
      A number within [0, 2]; 0 if every image has probability 1 for its class.

    Raises:
      UserError: as `negative_log_likelihoods`.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import brier_score
      >>> brier_score(np.array([[0.5, 0.5], [1, 0]]), np.array([0, 1]))  # (0.5 + 2) / 2
      1.25
    """
    return float(brier_scores(probabilities, labels).mean())


def brier_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Brier score of each image, sum_c (p_c - 1[c = y])^2 with y its class.

    Brier 1950, "Verification of Forecasts Expressed in Terms of Probability".

    Args:
      probabilities: [n, C] within [0, 1], rows sum to 1.
      labels: integers [n] or [n, 1], from 0 to C - 1.

    Returns:
      float64 [n], within [0, 2].

    Raises:
      UserError: as `negative_log_likelihoods`.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import brier_scores
      >>> brier_scores(np.array([[0.5, 0.5], [1, 0]]), np.array([0, 1])).tolist()
      [0.5, 2.0]
    """
    rows, numbers = _distributions_and_labels(probabilities, labels)
    errors = rows.copy()
    errors[np.arange(len(rows)), numbers] -= 1
    return np.square(errors).sum(axis=1)


def _distributions_and_labels(probabilities: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    return scores_and_labels(distributions(probabilities), labels, name="probabilities")


def distributions(probabilities: Any) -> np.ndarray:
    """Checks class probabilities: float64 [n, C].

    Raises:
      UserError: as `probability_rows`, or rows that do not sum to 1.
    """
    rows = probability_rows(probabilities)
    sums = rows.sum(axis=1)
    is_wrong = np.abs(sums - 1) > _SUM_TOLERANCE
    if is_wrong.any():
        raise UserError(
            f"the rows of probabilities must sum to 1, got {sums[is_wrong][0]:g} in row "
            f"{is_wrong.argmax()}"
        )
    return rows
