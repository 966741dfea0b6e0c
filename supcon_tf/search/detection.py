"""How well a score separates unknown images from known ones."""

import dataclasses
from typing import Any

import numpy as np

from supcon_tf.errors import UserError, check_number


@dataclasses.dataclass(frozen=True)
class Detection:
    """Measures of an unknown score.

    Args:
      auroc: area under the ROC curve, the probability that an unknown image has a higher score
        than a known one, equal scores counting half.
      fpr95: share of the unknown images that pass as known at the threshold that keeps 95 % of the
        known ones.
      aupr: area under the precision-recall curve with the unknown images as positives ("AUPR-Out"),
        sum_n (R_n - R_{n-1}) P_n over the distinct scores. It depends on the share of unknown
        images.
    """

    auroc: float
    fpr95: float
    aupr: float


def detection(known: Any, unknown: Any) -> Detection:
    """AUROC, FPR95 and AUPR of a score that is higher for unknown images.

    Args:
      known: [n] scores of images of known classes.
      unknown: [m] scores of other images.

    Raises:
      UserError: no scores, another shape, or NaN.

    Example:
      >>> from supcon_tf.search import detection
      >>> detection([0.1, 0.2, 0.3, 0.4], [0.35, 0.5])
      Detection(auroc=0.875, fpr95=0.5, aupr=0.8333333333333333)
    """
    known, unknown = _scores("known", known), _scores("unknown", unknown)
    ordered = np.sort(known)
    lower = np.searchsorted(ordered, unknown, side="left")
    equal = np.searchsorted(ordered, unknown, side="right") - lower
    auroc = float((lower + equal / 2).mean() / len(known))
    fpr95 = float((unknown <= keeping(known, 0.95)).mean())
    # Precision at the score of each unknown image.
    accepted = len(unknown) - np.searchsorted(np.sort(unknown), unknown, side="left")
    aupr = float((accepted / (accepted + len(known) - lower)).mean())
    return Detection(auroc, fpr95, aupr)


def keeping(known: np.ndarray, share: float) -> float:
    """The lowest score such that at least this share of the known images is not above it.

    Raises:
      UserError: a share outside (0, 1].
    """
    check_number("known_share", share, above=0, at_most=1)
    # The margin allows for rounding: 0.95 * 20 may exceed 19.
    return float(np.sort(known)[max(0, int(np.ceil(share * len(known) - 1e-9)) - 1)])


def _scores(name: str, values: Any) -> np.ndarray:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or not len(scores) or np.isnan(scores).any():
        raise UserError(
            f"the scores of {name} images must be numbers [n] with n >= 1, got shape "
            f"{scores.shape}{' with NaN' * bool(np.isnan(scores).any())}"
        )
    return scores
