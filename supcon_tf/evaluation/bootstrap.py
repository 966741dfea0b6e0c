"""Bootstrap intervals: how much a measure would change with other test images."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from supcon_tf.errors import UserError, check_integer, check_number
from supcon_tf.evaluation.metrics import as_array

# Drawn images at a time, 2 MB, which stay in the processor's cache.
_MAX_BLOCK = 2**18


@dataclasses.dataclass(frozen=True)
class Interval:
    """A measure and its confidence interval.

    Args:
      value: the measure of all images.
      low, high: limits of the interval.
    """

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: np.ndarray, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean over images.

    Draws n of the n images with replacement, `resamples` times; the limits are the
    (1 - level) / 2 and (1 + level) / 2 quantiles of the means. Efron and Tibshirani 1993, "An
    Introduction to the Bootstrap", chapter 13. It covers the choice of test images, and not that of
    training images or seeds.

    Args:
      values: [n] of each image, such as `probabilities.argmax(axis=1) == labels`,
        `negative_log_likelihoods` or `recall_at_k(...).per_image`.
      level: within (0, 1). Defaults to 0.95.
      resamples: >= 1. Defaults to 1,000.
      seed: >= 0; the same seed and n give the same draws.

    Raises:
      UserError: values that are not finite numbers [n], or an option out of range.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import bootstrap_interval
      >>> found = bootstrap_interval(np.array([True] * 80 + [False] * 20))
      >>> found.value, 0.7 < found.low < 0.75, 0.85 < found.high < 0.9
      (0.8, True, True)
    """
    values = _image_values("values", values)
    means = [
        counts @ values / len(values) for counts in resampled_counts(len(values), resamples, seed)
    ]
    return Interval(float(values.mean()), *percentile_limits(np.concatenate(means), level=level))


def bootstrap_difference(
    first: np.ndarray,
    second: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Interval of the mean difference, first - second, of two runs on the same images.

    The same images are drawn for both (paired), so the interval is narrower than those of the two
    runs where they err on the same images. If 0 is outside, the difference is significant.

    Args:
      first, second: [n], values of the same images in the same order.
      level, resamples, seed: as in `bootstrap_interval`.

    Raises:
      UserError: as `bootstrap_interval`, or different numbers of images.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import bootstrap_difference
      >>> first = np.array([1.0, 2.0, 3.0, 4.0])
      >>> bootstrap_difference(first, first - 0.5)
      Interval(value=0.5, low=0.5, high=0.5)
    """
    first, second = _image_values("first", first), _image_values("second", second)
    if len(first) != len(second):
        raise UserError(
            f"first and second must be of the same images, got {len(first)} and {len(second)} "
            "values"
        )
    return bootstrap_interval(first - second, level=level, resamples=resamples, seed=seed)


def resampled_counts(num_images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn: int64 [b, n], `resamples` rows in all, each of sum n."""
    check_integer("resamples", resamples, at_least=1)
    rng = np.random.default_rng(check_integer("seed", seed, at_least=0))
    rows_at_a_time = max(1, _MAX_BLOCK // num_images)
    for start in range(0, resamples, rows_at_a_time):
        rows = min(rows_at_a_time, resamples - start)
        drawn = rng.integers(0, num_images, (rows, num_images))
        drawn += num_images * np.arange(rows)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=rows * num_images)
        yield counts.reshape(rows, num_images)


def percentile_limits(estimates: np.ndarray, *, level: float) -> tuple[float, float]:
    """The (1 - level) / 2 and (1 + level) / 2 quantiles of the resampled estimates."""
    check_number("level", level, above=0, below=1)
    low, high = np.quantile(estimates, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _image_values(name: str, values: Any) -> np.ndarray:
    array = as_array(name, values)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "biuf":
        raise UserError(
            f"{name} must be numbers [n] with n >= 1, got {array.dtype} of shape {array.shape}"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise UserError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    return array
