"""Sums over pairs of anchors and contrast rows, from which all contrastive losses are made.

An anchor i has the other rows A(i) of the contrast set: positives P(i) share a label with it,
negatives N(i) do not. s_ij is the product of two rows, which are divided by the square root of the
temperature.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, get_args

import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError, check_choice, check_number
from supcon_tf.losses.dense import LOG_ZERO, DensePairs, Entries
from supcon_tf.losses.multiview import l2_normalize
from supcon_tf.losses.streaming import StreamingPairs, allows_self_contrast

Anchors = Literal["all_views", "one_view"]
Implementation = Literal["auto", "dense", "streaming"]
Summation = Literal["outside", "inside"]
Denominator = Literal["all", "one_positive", "mean_positive", "only_negatives"]

# Maximum number of similarities for which "auto" is dense (docs/loss.md). Above its limit,
# self-contrast streaming is also faster; general streaming only saves memory.
_MAX_DENSE_SELF_CONTRAST = 1024**2
MAX_DENSE_GENERAL = 4096**2


class Pairs(Protocol):
    """Sums over the pairs of R anchor rows with their contrast set, each with its gradient."""

    def log_sum(self, entries: Entries, row_log_weights: tf.Tensor | None = None) -> tf.Tensor:
        """Log of the sum over A(i) or N(i) of exp(s_ij + w_j), LOG_ZERO if empty: float32 [R].

        `row_log_weights` are w, float32 [S] for the S contrast rows, without a gradient.
        """
        ...

    def positive_mean(self, log_negatives: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean over P(i) of t_ip, and |P(i)|: float32 [R] each; 0 without a positive.

        t_ip is s_ip, or with `log_negatives` n, float32 [R], the log ratio
        s_ip - log(exp(s_ip) + exp(n_i)).
        """
        ...

    def positive_log_sum(
        self, log_negatives: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Log of the sum over P(i) of exp(t_ip), LOG_ZERO if empty, and |P(i)|: [R] each."""
        ...

    def nearest(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The largest s_ij over P(i) and over N(i), LOG_ZERO if empty: [R] each, no gradient."""
        ...


class MultiviewBatch(NamedTuple):
    """The anchors and the contrast set of a batch.

    In a `tf.distribute` replica the anchors are the local samples and the contrast set is the
    global batch.
    """

    labels: tf.Tensor  # int64 [N] class numbers, or float32 [N, C]
    anchors: tf.Tensor  # float32 [N, A, D], the first A views, divided by sqrt(temperature)
    contrast_labels: tf.Tensor  # [M] or [M, C]
    contrast: tf.Tensor  # float32 [M, V, D]; `anchors` itself where both are the same
    first_row: tf.Tensor  # int32, position of the first anchor's sample in the contrast set
    allows_self_contrast: bool  # whether the rows are short enough for exp(s) without a maximum

    def sample_means(self, values: tf.Tensor) -> tf.Tensor:
        """Values of the anchor rows [N * A] -> their means over a sample's views [N]."""
        return tf.reduce_mean(tf.reshape(values, [-1, self.anchors.shape[1]]), axis=1)

    def repeat_for_rows(self, values: tf.Tensor) -> tf.Tensor:
        """Values of the anchor samples [N, ...] -> of the anchor rows [N * A, ...]."""
        return tf.repeat(values, self.anchors.shape[1], axis=0)

    def anchor_rows(self) -> tf.Tensor:
        """float32 [N * A, D]."""
        return tf.reshape(self.anchors, [-1, self.anchors.shape[2]])


def multiview_batch(
    labels: tf.Tensor,
    features: tf.Tensor,
    *,
    temperature: Any,
    normalize: bool = True,
    anchors: Anchors = "all_views",
    contrast_gradient: bool = True,
) -> MultiviewBatch:
    """Gathers labels and features [N, V, D] of all replicas; see `MultiviewBatch`.

    Args:
      labels: of this replica, int64 [N] class numbers or float32 [N, C].
      features: float32 [N, V, D] of this replica.
      temperature: a number, or a scalar tensor, which then gets a gradient too.
      normalize: L2-normalises the rows first.
      anchors: which views are anchors.
      contrast_gradient: whether the contrast set has a gradient.
    """
    if normalize:
        features = l2_normalize(features)
    contrast = distribution.gather(features)
    if contrast is not features:
        # The gather loses the static shape.
        contrast.set_shape([None, *features.shape[1:]])
    if not contrast_gradient:
        contrast = tf.stop_gradient(contrast)
    is_same = contrast is features
    features = features * temperature**-0.5
    contrast = features if is_same else contrast * temperature**-0.5
    return MultiviewBatch(
        labels=labels,
        anchors=features[:, :1] if anchors == "one_view" else features,
        contrast_labels=distribution.gather(labels),
        contrast=contrast,
        first_row=distribution.first_row(tf.shape(features)[0]),
        allows_self_contrast=normalize and allows_self_contrast(temperature),
    )


def make_pairs(
    batch: MultiviewBatch,
    *,
    implementation: Implementation = "auto",
    positives_cap: int | None = None,
    positive_mask: tf.Tensor | None = None,
) -> Pairs:
    """The pairs of a batch, from the whole matrix of similarities or tile by tile.

    Args:
      batch: anchors and contrast set.
      implementation: "auto" streams batches of unknown size and large ones, as `supcon_loss` says.
      positives_cap: as in `supcon_loss`; needs the dense form.
      positive_mask: bool [N, M], which other samples are positives instead of those that share a
        label; needs the dense form.
    """
    needs_masks = positives_cap is not None or positive_mask is not None
    if implementation == "auto":
        self_contrast = batch.allows_self_contrast and batch.anchors is batch.contrast
        max_dense = _MAX_DENSE_SELF_CONTRAST if self_contrast else MAX_DENSE_GENERAL
        sizes = (*batch.anchors.shape[:2], *batch.contrast.shape[:2])
        is_large = None in sizes or math.prod(sizes) > max_dense
        implementation = "streaming" if is_large and not needs_masks else "dense"
    arrays = batch.labels, batch.anchors, batch.contrast_labels, batch.contrast, batch.first_row
    if implementation == "streaming":
        return StreamingPairs(*arrays, allows_self_contrast=batch.allows_self_contrast)
    return DensePairs.of_batch(*arrays, positives_cap=positives_cap, positive_mask=positive_mask)


def log_add(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """log(exp(one) + exp(other)), also of LOG_ZERO.

    The gradient is a softmax, also where both are equal; that of tf.maximum would go to one.
    """
    is_larger = one >= other
    larger, smaller = tf.where(is_larger, one, other), tf.where(is_larger, other, one)
    base = tf.stop_gradient(larger)
    return base + tf.math.log1p(tf.math.expm1(larger - base) + tf.exp(smaller - base))


def check_formula(*, summation: str, denominator: str, margin: float) -> None:
    """Raises UserError for options of `losses_of_pairs` that are invalid or exclude each other."""
    check_choice("summation", summation, get_args(Summation))
    check_choice("denominator", denominator, get_args(Denominator))
    check_number("margin", margin, at_least=0)
    if margin and denominator == "only_negatives":
        raise UserError(
            f"margin needs a denominator with positives, got {margin} with 'only_negatives'"
        )


def losses_of_pairs(
    pairs: Pairs,
    *,
    summation: Summation,
    denominator: Denominator,
    margin: float,
    positive_mean: Callable[[], tuple[tf.Tensor, tf.Tensor]] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """SupCon of each anchor row, and whether it has a positive.

    Args:
      pairs: of R anchor rows with their contrast set.
      summation, denominator, margin: as in `supcon_loss`.
      positive_mean: returns the mean of s_ip that summation "outside" takes, and a number that is 0
        without a positive, [R] each; None for `pairs.positive_mean`.

    Returns:
      float32 [R], 0 where the loss is not defined and not multiplied by the temperature; bool [R].
    """
    if denominator == "one_positive":
        # s_ip - log(exp(s_ip - margin) + sum over N) = margin + log_sigmoid(s_ip - n_i)
        log_negatives = pairs.log_sum("negatives") + margin
        if summation == "outside":
            mean, count = pairs.positive_mean(log_negatives)
        else:
            log_sum, count = pairs.positive_log_sum(log_negatives)
            mean = log_sum - tf.math.log(tf.maximum(count, 1.0))
        return tf.where(count > 0, -mean - margin, 0.0), count > 0
    splits_denominator = denominator == "mean_positive" or (denominator == "all" and margin > 0)
    if splits_denominator or summation == "inside":
        log_sum, count = pairs.positive_log_sum()
    if splits_denominator:
        log_positives = log_sum - margin
        if denominator == "mean_positive":
            log_positives -= tf.math.log(tf.maximum(count, 1.0))
        log_denominator = log_add(pairs.log_sum("negatives"), log_positives)
    else:
        log_denominator = pairs.log_sum("all" if denominator == "all" else "negatives")
    if summation == "outside":
        mean, count = (positive_mean or pairs.positive_mean)()
    else:
        mean = log_sum - tf.math.log(tf.maximum(count, 1.0))
    is_defined = (count > 0) & (log_denominator > LOG_ZERO / 2)
    return tf.where(is_defined, log_denominator - mean, 0.0), count > 0
