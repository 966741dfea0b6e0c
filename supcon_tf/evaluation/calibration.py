"""Calibration error: how far confidence and accuracy differ."""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np

from supcon_tf.errors import UserError, check_choice, check_integer
from supcon_tf.evaluation.metrics import as_array, score_rows, scores_and_labels

Binning = Literal["equal_width", "equal_mass"]
# A float32 softmax may exceed 1 by this much.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class Reliability:
    """A reliability diagram as sums over the examples of each bin, so that diagrams can be added.

    Args:
      counts: int64 [bins], number of examples.
      confidences: float64 [bins], sum of their confidences.
      hits: int64 [bins], number of correct predictions.
    """

    counts: np.ndarray
    confidences: np.ndarray
    hits: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, sum_m |B_m| / n |accuracy(B_m) - confidence(B_m)|."""
        return float(np.abs(self.hits - self.confidences).sum() / self.counts.sum())

    def __add__(self, other: "Reliability") -> "Reliability":
        """The diagram of both sets of examples; their bins must have the same edges."""
        if self.counts.shape != other.counts.shape:
            raise UserError(
                "reliability diagrams must have the same number of bins, got "
                f"{len(self.counts)} and {len(other.counts)}"
            )
        return Reliability(
            self.counts + other.counts,
            self.confidences + other.confidences,
            self.hits + other.hits,
        )


def reliability(
    confidences: np.ndarray,
    is_right: np.ndarray,
    *,
    bins: int = 15,
    binning: Binning = "equal_width",
) -> Reliability:
    """Reliability diagram: confidence and accuracy of the examples in each bin of confidence.

    Guo et al. 2017, "On Calibration of Modern Neural Networks". "equal_width": the bins are
    ((m - 1) / bins, m / bins], and 0 belongs to the first. "equal_mass": the edges are quantiles,
    so that each bin holds the same number of examples, except that equal confidences share a bin;
    Nixon et al. 2019, "Measuring Calibration in Deep Learning".

    Args:
      confidences: [n] within [0, 1], the probability of the predicted class.
      is_right: bool [n], whether the prediction was correct.
      bins: number of bins. Defaults to 15.
      binning: "equal_width" or "equal_mass". Defaults to "equal_width".

    Raises:
      UserError: bins < 1, no examples, shapes that disagree, an unknown binning, or confidences
        outside [0, 1].

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import reliability
      >>> found = reliability(np.array([0.75, 0.75]), np.array([True, False]), bins=2)
      >>> found.counts.tolist(), found.hits.tolist(), found.error
      ([0, 2], [0, 1], 0.25)
    """
    check_integer("bins", bins, at_least=1)
    check_choice("binning", binning, get_args(Binning))
    values, is_right = confidences_and_hits(confidences, is_right)
    if not (values.min() >= 0 and values.max() <= 1 + _ROUNDING):
        raise UserError(f"confidences must be within [0, 1], got {values.min()} to {values.max()}")
    if binning == "equal_width":
        inner_edges = np.arange(1, bins) / bins
    else:
        last_of_bin = np.ceil(len(values) * np.arange(1, bins) / bins).astype(int) - 1
        inner_edges = np.sort(values)[last_of_bin]
    bin_of = np.digitize(values, inner_edges, right=True)
    return Reliability(
        counts=np.bincount(bin_of, minlength=bins),
        confidences=np.bincount(bin_of, weights=values, minlength=bins),
        hits=np.bincount(bin_of[is_right], minlength=bins),
    )


def confidences_and_hits(confidences: Any, is_right: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checks that confidences and hits belong together: float64 [n], bool [n].

    Raises:
      UserError: no examples, shapes that disagree, or other dtypes.
    """
    values, hits = as_array("confidences", confidences), as_array("is_right", is_right)
    if values.dtype.kind not in "biuf":
        raise UserError(f"confidences must be numbers, got {values.dtype}")
    values = values.astype(np.float64)
    if values.ndim != 1 or values.shape != hits.shape or not len(values):
        raise UserError(
            "confidences and is_right must both be [n] with n >= 1, got shapes "
            f"{values.shape} and {hits.shape}"
        )
    is_other = ~np.isin(hits, (0, 1))
    if is_other.any():
        raise UserError(f"is_right must be bool, got {hits[is_other][0]}")
    return values, hits.astype(bool)


def expected_calibration_error(
    probabilities: np.ndarray,
    labels: np.ndarray,
    bins: int = 15,
    *,
    binning: Binning = "equal_width",
) -> float:
    """Expected calibration error (ECE) of class probabilities.

    sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|, where B_m are the examples whose largest
    probability lies in bin m: see `reliability`. Ties are broken in favour of the lower class
    number.

    Args:
      probabilities: [n, C] within [0, 1].
      labels: integers [n] or [n, 1], from 0 to C - 1.
      bins: number of bins. Defaults to 15.
      binning: "equal_width" or "equal_mass" (adaptive). Defaults to "equal_width".

    Returns:
      A number within [0, 1]; 0 for a calibrated model.

    Raises:
      UserError: as `reliability`, NaN, or labels of another shape, dtype or range.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import expected_calibration_error
      >>> expected_calibration_error(np.array([[0.25, 0.75], [0.25, 0.75]]), np.array([1, 0]))
      0.25
    """
    rows, labels = scores_and_labels(probability_rows(probabilities), labels, name="probabilities")
    is_right = rows.argmax(axis=1) == labels
    return reliability(rows.max(axis=1), is_right, bins=bins, binning=binning).error


def probability_rows(probabilities: Any) -> np.ndarray:
    """Checks probabilities of classes: float64 [n, C].

    Raises:
      UserError: as `score_rows`, or values outside [0, 1].
    """
    rows = score_rows(probabilities, "probabilities")
    for value in (rows.min(), rows.max()):
        if not 0 <= value <= 1 + _ROUNDING:
            raise UserError(
                f"probabilities must be within [0, 1], got {value}: apply a softmax to logits"
            )
    return rows
