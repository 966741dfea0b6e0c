"""Measures of a test split with bootstrap intervals, from the same resamples of its images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from supcon_tf.evaluation.bootstrap import (
    Interval,
    bootstrap_interval,
    percentile_limits,
    resampled_counts,
)
from supcon_tf.evaluation.metrics import scores_and_labels
from supcon_tf.evaluation.retrieval import retrieval_measures
from supcon_tf.evaluation.scoring_rules import brier_scores, negative_log_likelihoods
from supcon_tf.evaluation.selective import RiskCoverage

LEVEL = 0.95


def classification_intervals(
    probabilities: np.ndarray, labels: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Measures of class probabilities and their 95 % percentile bootstrap intervals.

    The confidence of AURC and AUGRC is the largest probability. Classes without an image in a
    resample do not enter its worst class. A minimum over classes is biased: the interval of the
    worst class may lie below its value.

    Args:
      probabilities: [n, C] within [0, 1], rows sum to 1.
      labels: integers [n] or [n, 1], from 0 to C - 1.
      resamples: number of resamples of the n images.
      seed: of the resamples.

    Returns:
      "top_1", "negative_log_likelihood", "brier_score", "worst_class", "aurc" and "augrc".

    Raises:
      UserError: as `negative_log_likelihood`.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import classification_intervals
      >>> probabilities = np.array([[0.9, 0.1]] * 90 + [[0.6, 0.4]] * 10)
      >>> found = classification_intervals(probabilities, np.array([0] * 90 + [1] * 10))
      >>> found["top_1"].value, found["worst_class"]
      (0.9, Interval(value=0.0, low=0.0, high=0.0))
    """
    rows, numbers = scores_and_labels(probabilities, labels, name="probabilities")
    is_right = rows.argmax(axis=1) == numbers
    means = {
        "top_1": is_right.astype(np.float64),
        "negative_log_likelihood": negative_log_likelihoods(rows, numbers),
        "brier_score": brier_scores(rows, numbers),
    }
    values = np.stack([*means.values()], axis=1)  # [n, 3]
    curve = RiskCoverage(rows.max(axis=1), is_right)

    def measures(counts: np.ndarray) -> np.ndarray:
        """How often each image occurs [b, n] -> measures [b, 6]."""
        averages = counts @ values / len(values)
        others = (_worst_class(counts, numbers, is_right), *curve.areas(counts))
        return np.column_stack([averages, *others])

    names = (*means, "worst_class", "aurc", "augrc")
    [found] = measures(np.ones((1, len(values)), np.int64))
    resampled = np.concatenate(
        [measures(counts) for counts in resampled_counts(len(values), resamples, seed)]
    )
    return {
        name: Interval(float(found[i]), *percentile_limits(resampled[:, i], level=LEVEL))
        for i, name in enumerate(names)
    }


def retrieval_intervals(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, Interval]:
    """Recall at 1 and MAP@R of embeddings with 95 % bootstrap intervals over the query images.

    All images stay in the set that is searched.

    Args:
      embeddings: [n, D].
      labels: integers [n] or [n, 1].

    Returns:
      "recall_at_1" and "mean_average_precision_at_r"; {} if no class has two images.

    Raises:
      UserError: as `recall_at_k`.
    """
    if len(np.unique(labels)) == len(labels):
        return {}
    return {
        name: bootstrap_interval(found.per_image, level=LEVEL)
        for name, found in retrieval_measures(embeddings, labels).items()
    }


def as_metrics(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """Entries of metrics.json: each value, and "intervals", name -> [low, high]."""
    limits = {name: [found.low, found.high] for name, found in intervals.items()}
    return {**{name: found.value for name, found in intervals.items()}, "intervals": limits}


def _worst_class(counts: np.ndarray, labels: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """Lowest accuracy of a class of each resample: [b, n] -> [b]."""
    by_class = np.argsort(labels, kind="stable")
    firsts = np.flatnonzero(np.diff(labels[by_class], prepend=-1))
    ranked = counts[:, by_class]
    images = np.add.reduceat(ranked, firsts, axis=1)
    hits = np.add.reduceat(ranked * is_right[by_class], firsts, axis=1)
    return np.where(images > 0, hits / np.maximum(images, 1), np.inf).min(axis=1)
