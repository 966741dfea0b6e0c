"""Whether a model is right as often as it says."""

import numpy as np


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> float:
    """How far confidence and accuracy are apart, on average over the examples.

    sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|, where B_m are the examples whose largest
    probability lies in ((m - 1) / bins, m / bins], 0 in the first; Guo et al. 2017, "On
    Calibration of Modern Neural Networks". Of equal probabilities the lower class is the guess.

    Args:
      probabilities: [n, C] within [0, 1].
      labels: integers [n].
      bins: of equal width; those without examples count nothing.

    Returns:
      Within [0, 1]; 0 is calibrated.

    Raises:
      ValueError: bins < 1, no example, or numbers that are not probabilities.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import expected_calibration_error
      >>> expected_calibration_error(np.array([[0.25, 0.75], [0.25, 0.75]]), np.array([1, 0]))
      0.25
    """
    if bins < 1 or not len(labels):
        raise ValueError(f"bins and n must be >= 1, got bins={bins} and n={len(labels)}")
    guess = np.argmax(probabilities, axis=1)
    confidence = np.max(probabilities, axis=1).astype(np.float64)
    # A float32 softmax exceeds 1 by rounding.
    if not (np.min(probabilities) >= 0 and confidence.max() <= 1 + 1e-5):
        raise ValueError(
            "probabilities must be within [0, 1], got "
            f"[{np.min(probabilities)}, {confidence.max()}]: apply a softmax to logits"
        )
    inner_edges = np.arange(1, bins) / bins
    bin_of = np.digitize(confidence, inner_edges, right=True)
    # [n] -> [bins]: |B| (accuracy - confidence), a sum over the bin.
    gaps = np.bincount(bin_of, weights=(guess == labels) - confidence)
    return float(np.abs(gaps).sum() / len(labels))
