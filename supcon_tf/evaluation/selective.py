"""Selective classification: the errors that remain when low confidences are rejected."""

from typing import Any

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.evaluation.calibration import confidences_and_hits


def aurc(confidences: np.ndarray, is_right: np.ndarray) -> float:
    """Area under the risk-coverage curve (AURC): the mean error rate over all coverages.

    1/n sum_k e_k / k, where e_k is the number of errors among the k highest confidences. Geifman
    and El-Yaniv 2017, "Selective Classification for Deep Neural Networks"; Geifman et al. 2019,
    "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers". For equal confidences it is
    the mean over all their orders, so nothing depends on the order of the examples.

    Args:
      confidences: [n] finite or infinite, larger is more confident.
      is_right: bool [n], whether the prediction was correct.

    Returns:
      A number within [0, 1], smaller is better. Constant confidences give the error rate.

    Raises:
      UserError: no examples, NaN, or shapes that disagree.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import aurc
      >>> value = aurc(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, True, False]))
      >>> round(value, 4)  # 1/4 * 1/4
      0.0625
    """
    return _of_all(confidences, is_right)[0]


def augrc(confidences: np.ndarray, is_right: np.ndarray) -> float:
    """Area under the generalized risk-coverage curve (AUGRC): mean risk of an undetected failure.

    The generalized risk is the number of errors that are accepted, divided by all n examples. The
    area is by trapezoids, with a straight line over equal confidences, and equals
    (1 - AUROC) a (1 - a) + (1 - a)^2 / 2, where a is the accuracy and AUROC is that of the
    confidence for correct predictions, in which ties count half. Traub et al. 2024, "Overcoming
    Common Flaws in the Evaluation of Selective Classification Systems", arXiv 2407.01032.

    Args:
      confidences: [n] finite or infinite, larger is more confident.
      is_right: bool [n], whether the prediction was correct.

    Returns:
      A number within [0, 1/2], smaller is better.

    Raises:
      UserError: no examples, NaN, or shapes that disagree.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import augrc
      >>> value = augrc(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, True, False]))
      >>> round(value, 5)  # (1/4)^2 / 2
      0.03125
    """
    return _of_all(confidences, is_right)[1]


def _of_all(confidences: np.ndarray, is_right: np.ndarray) -> tuple[float, float]:
    curve = RiskCoverage(confidences, is_right)
    areas = curve.areas(np.ones((1, len(curve.order)), np.int64))
    return float(areas[0][0]), float(areas[1][0])


class RiskCoverage:
    """Examples in the order of their confidence, for the areas of many resamples of them.

    Args:
      confidences, is_right: as in `aurc`.
    """

    def __init__(self, confidences: Any, is_right: Any):
        values, is_right = confidences_and_hits(confidences, is_right)
        if np.isnan(values).any():
            raise UserError(
                f"confidences must be numbers, got NaN in {np.isnan(values).sum()} of {len(values)}"
            )
        self.order = np.argsort(-values, kind="stable")
        ranked = values[self.order]
        self._is_wrong = ~is_right[self.order]
        self._last_of_ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))

    def areas(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AURC and AUGRC of examples that occur several times or not at all.

        Args:
          counts: integers [..., n], how often each example occurs; rows have the same sum.

        Returns:
          float64 [...] each.
        """
        ranked = counts[..., self.order]
        # Images and errors up to the end of each tie, [..., ties].
        accepted = np.cumsum(ranked, axis=-1)[..., self._last_of_ties]
        errors_accepted = np.cumsum(ranked * self._is_wrong, axis=-1)[..., self._last_of_ties]
        images = np.diff(accepted, axis=-1, prepend=0)
        errors = np.diff(errors_accepted, axis=-1, prepend=0)
        total = int(accepted.flat[-1])
        augrc = (images * (errors_accepted - errors / 2)).sum(axis=-1) / total**2
        # A tie of m images with e errors, in random order, has after j images an expected risk of
        # (E + j e/m) / (K + j) = e/m + (E - K e/m) / (K + j), with E errors in K images before.
        harmonic = np.cumsum(1 / np.arange(1, total + 1))
        sums = np.diff(np.append(0.0, harmonic)[accepted], axis=-1, prepend=0)
        rate = errors / np.maximum(images, 1)
        rest = (errors_accepted - accepted * rate) * sums
        return (errors + rest).sum(axis=-1) / total, augrc
