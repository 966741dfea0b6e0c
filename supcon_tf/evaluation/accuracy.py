"""How often the right class is among the best scored."""

import numpy as np

from supcon_tf.evaluation.class_numbers import class_numbers


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, *, k: int = 1) -> float:
    """Share of examples whose class is among the k best scored.

    Of equal scores the lower class number counts as the better one, so that constant scores are
    no better than chance.

    Args:
      scores: [n, C], larger is likelier.
      labels: integers [n] or [n, 1].
      k: how many guesses count; more than C is C.

    Raises:
      ValueError: k < 1, no example, or labels of another shape or of floats.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import top_k_accuracy
      >>> top_k_accuracy(np.array([[0.1, 0.7, 0.2], [0.5, 0.4, 0.1]]), np.array([1, 1]))
      0.5
    """
    labels = class_numbers(labels)
    if k < 1 or not len(labels):
        raise ValueError(f"k must be >= 1 and n >= 1, got k={k} and n={len(labels)}")
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
      ValueError: no example, or labels of another shape or of floats.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import mean_per_class_accuracy
      >>> scores = np.array([[1, 0], [1, 0], [1, 0], [1, 0]])
      >>> mean_per_class_accuracy(scores, np.array([0, 0, 0, 1]))
      0.5
    """
    labels = class_numbers(labels)
    if not len(labels):
        raise ValueError("n must be >= 1, got no example")
    is_right = np.argmax(scores, axis=1) == labels
    return float(np.mean([is_right[labels == c].mean() for c in np.unique(labels)]))
