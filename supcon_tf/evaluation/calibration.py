"""Whether a model is right as often as it says."""

import dataclasses
from typing import Literal, get_args

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.evaluation.metrics import class_numbers

Binning = Literal["equal_width", "equal_mass"]


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Examples grouped by confidence, as sums, so that several groups of examples can be added.

    Args:
      counts: int64 [bins], examples in each.
      confidences: float64 [bins], the sum of their confidences.
      hits: int64 [bins], how many were right.
    """

    counts: np.ndarray
    confidences: np.ndarray
    hits: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, sum_m |B_m| / n |accuracy(B_m) - confidence(B_m)|."""
        return float(np.abs(self.hits - self.confidences).sum() / self.counts.sum())

    def __add__(self, other: "Reliability") -> "Reliability":
        """Of both groups of examples; meaningful where their bins have the same edges."""
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
    """A reliability diagram: in bins of confidence, how sure the model was and how often right.

    Guo et al. 2017, "On Calibration of Modern Neural Networks". "equal_width": the bins are
    ((m - 1) / bins, m / bins], with 0 in the first. "equal_mass": their edges are quantiles, so
    that each holds the same number of examples but for ties, which stay together; Nixon et al.
    2019, "Measuring Calibration in Deep Learning".

    Args:
      confidences: [n] within [0, 1], the probability of the guess.
      is_right: bool [n], whether the guess was right.
      bins: how many.
      binning: where their edges are.

    Raises:
      UserError: bins < 1, no example, an unknown binning, or numbers that are no probabilities.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import reliability
      >>> found = reliability(np.array([0.75, 0.75]), np.array([True, False]), bins=2)
      >>> found.counts.tolist(), found.hits.tolist(), found.error
      ([0, 2], [0, 1], 0.25)
    """
    if bins < 1 or not len(confidences):
        raise UserError(f"bins and n must be >= 1, got bins={bins} and n={len(confidences)}")
    if binning not in get_args(Binning):
        raise UserError(f"binning must be one of {get_args(Binning)}, got {binning!r}")
    values = np.asarray(confidences, np.float64)
    # A float32 softmax exceeds 1 by rounding.
    if not (values.min() >= 0 and values.max() <= 1 + 1e-5):
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
        hits=np.bincount(bin_of[np.asarray(is_right, bool)], minlength=bins),
    )


def expected_calibration_error(
    probabilities: np.ndarray,
    labels: np.ndarray,
    bins: int = 15,
    *,
    binning: Binning = "equal_width",
) -> float:
    """How far confidence and accuracy are apart, on average over the examples.

    sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|, where B_m are the examples whose largest
    probability lies in bin m: see `reliability`. Of equal probabilities the lower class is the
    guess.

    Args:
      probabilities: [n, C] within [0, 1].
      labels: integers [n] or [n, 1].
      bins: how many; those without examples count nothing.
      binning: "equal_width" or "equal_mass", the adaptive one.

    Returns:
      Within [0, 1]; 0 is calibrated.

    Raises:
      UserError: as in `reliability`, or labels of another shape or of floats.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import expected_calibration_error
      >>> expected_calibration_error(np.array([[0.25, 0.75], [0.25, 0.75]]), np.array([1, 0]))
      0.25
    """
    labels = class_numbers(labels)
    if not len(labels):
        raise UserError("n must be >= 1, got n=0")
    if np.min(probabilities) < 0:
        raise UserError(
            f"probabilities must be within [0, 1], got {np.min(probabilities)}: apply a softmax to "
            "logits"
        )
    guess = np.argmax(probabilities, axis=1)
    confidences = np.max(probabilities, axis=1)
    return reliability(confidences, guess == labels, bins=bins, binning=binning).error
