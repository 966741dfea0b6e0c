"""NumPy parts that both sides of compare_supcontrast.py use: schedule and statistics of a step."""

import numpy as np

# What is recorded of a step.
LOGGED = (
    "loss",
    "mean cosine",
    "effective rank",
    "gradient of the head",
    "gradient of the encoder",
)


def statistics(projections: np.ndarray) -> dict[str, float]:
    """How far projections have spread from one direction.

    Args:
      projections: [N, D], of unit length.

    Returns:
      "mean cosine" of two different rows, and "effective rank", as
      `supcon_tf.evaluation.projection_measures` has it; PyTorch's process cannot import that.
    """
    rows = projections.astype(np.float64)
    count = len(rows)
    mean_cosine = (np.square(rows.sum(0)).sum() - np.square(rows).sum()) / (count * (count - 1))
    singular_values = np.linalg.svd(rows, compute_uv=False)
    shares = singular_values[singular_values > 0] / singular_values.sum()
    return {
        "mean cosine": float(mean_cosine),
        "effective rank": float(np.exp(-(shares * np.log(shares)).sum())),
    }


def cosine_rates(peak: float, epochs: int) -> list[float]:
    """The learning rate of each epoch, from nearly `peak` to a thousandth of it.

    The schedule of the SupCon authors' PyTorch code: it changes once per epoch, and epoch 1 is one
    step down the cosine.
    """
    epoch = np.arange(1, epochs + 1)
    return list(peak * (1e-3 + (1 - 1e-3) * (1 + np.cos(np.pi * epoch / epochs)) / 2))
