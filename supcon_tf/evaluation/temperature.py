"""Temperature scaling: one number that makes class probabilities calibrated."""

import json
from pathlib import Path

import numpy as np

from supcon_tf.errors import UserError, check_number
from supcon_tf.evaluation.metrics import scores_and_labels
from supcon_tf.evaluation.scoring_rules import SMALLEST, distributions

# Limits of the temperature. The likelihood has no maximum within them if all images are classified
# correctly, for example.
LOWEST, HIGHEST = 0.05, 20.0
# In an export, {"temperature": T}.
TEMPERATURE_FILE = "temperature.json"


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T that minimises the negative log-likelihood of softmax(logits / T).

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2. The log-probabilities
    serve as logits, which gives the same T. The loss is convex in 1 / T and is minimised by
    Newton's method, for T within [0.05, 20]. Fit it on validation images, not on test images.

    Args:
      probabilities: [n, C] within [0, 1], rows sum to 1.
      labels: integers [n] or [n, 1], from 0 to C - 1.

    Returns:
      Above 1 for a model that is too confident.

    Raises:
      UserError: as `negative_log_likelihood`.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import fit_temperature, scale_probabilities
      >>> probabilities = np.array([[0.9, 0.1]] * 4)  # 0.9 is confident, 3 of 4 are right.
      >>> temperature = fit_temperature(probabilities, np.array([0, 0, 0, 1]))
      >>> scale_probabilities(probabilities[:1], temperature).round(4).tolist()
      [[0.75, 0.25]]
    """
    rows, numbers = scores_and_labels(distributions(probabilities), labels, name="probabilities")
    logits = _logits(rows)
    of_class = logits[np.arange(len(logits)), numbers]
    low, high = 1 / HIGHEST, 1 / LOWEST
    inverse = 1.0
    for _ in range(100):
        weights = _softmax(inverse * logits)
        means = (weights * logits).sum(axis=1)
        slope = float((means - of_class).mean())
        if slope == 0:
            break
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        curvature = float(((weights * np.square(logits)).sum(axis=1) - np.square(means)).mean())
        step = inverse - slope / curvature if curvature > 0 else 0.0
        # Halves the interval where Newton's step leaves it.
        following = step if low < step < high else (low * high) ** 0.5
        if abs(following - inverse) <= 1e-12 * inverse:
            break
        inverse = following
    return 1 / inverse


def scale_probabilities(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / T) from probabilities = softmax(logits): p_c^(1/T) / sum_k p_k^(1/T).

    Args:
      probabilities: [n, C] within [0, 1], rows sum to 1.
      temperature: T > 0, from `fit_temperature`.

    Returns:
      float64 [n, C]; the order of the classes is that of `probabilities`.

    Raises:
      UserError: invalid probabilities or temperature.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import scale_probabilities
      >>> scale_probabilities(np.array([[0.2, 0.8]]), 2.0).round(4).tolist()  # sqrt(4) = 2
      [[0.3333, 0.6667]]
    """
    check_number("temperature", temperature, above=0)
    return _softmax(_logits(distributions(probabilities)) / temperature)


def write_temperature(export: Path, temperature: float) -> None:
    """Writes the temperature into the directory of an export."""
    content = json.dumps({"temperature": temperature}, indent=2) + "\n"
    (export / TEMPERATURE_FILE).write_text(content, encoding="utf-8")


def read_temperature(export: Path) -> float:
    """The temperature of an export.

    Raises:
      UserError: an export without one, or a damaged file.
    """
    file = export / TEMPERATURE_FILE
    try:
        temperature = json.loads(file.read_bytes())["temperature"]
        check_number("temperature", temperature, above=0)
    except FileNotFoundError:
        raise UserError(
            f"the export in {str(export)!r} has no temperature: it needs a trained classifier of "
            "one label per image, and a run with a validation split, such as "
            "sources.folder.validation_share = 0.1"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{str(file)!r} is damaged ({error}): export the model again") from None
    return float(temperature)


def _logits(rows: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(rows, SMALLEST))


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
