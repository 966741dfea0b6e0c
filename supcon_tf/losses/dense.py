"""SupCon from the whole similarity matrix: supports every option, in quadratic memory."""

from typing import Literal

import tensorflow as tf

from supcon_tf.losses.multiview import share_label

Summation = Literal["outside", "inside"]
Denominator = Literal["all", "one_positive", "only_negatives"]


def dense_supcon(
    labels: tf.Tensor,
    anchors: tf.Tensor,
    contrast_labels: tf.Tensor,
    contrast: tf.Tensor,
    first_row: tf.Tensor,
    *,
    temperature: float,
    summation: Summation,
    denominator: Denominator,
    positives_cap: int | None,
) -> tf.Tensor:
    """SupCon of anchors with a contrast set, from the whole matrix of similarities.

    Args:
      labels: int64 [N] class numbers or float32 [N, C] of zeros and ones.
      anchors: float32 [N, A, D], the first A views of the anchor samples.
      contrast_labels: [M] or [M, C], the contrast set's labels in the same form.
      contrast: float32 [M, V, D]; samples first_row ... first_row + N - 1 are the anchors.
      first_row: int32 scalar.
      temperature, summation, denominator, positives_cap: as in `supcon_loss`.

    Returns:
      float32 [N], not scaled by the temperature.
    """
    num_anchor_views, num_views, dim = anchors.shape[1], contrast.shape[1], contrast.shape[2]
    rows, columns = tf.shape(anchors)[0], tf.shape(contrast)[0]
    logits = tf.matmul(
        tf.reshape(anchors, [-1, dim]) / temperature,
        tf.reshape(contrast, [-1, dim]),
        transpose_b=True,
    )
    # [N*A, M*V] -> [N, A, M, V]; the masks below broadcast to it.
    logits = tf.reshape(logits, [rows, num_anchor_views, columns, num_views])
    same_sample = (first_row + tf.range(rows))[:, None] == tf.range(columns)[None, :]
    same_view = tf.range(num_anchor_views)[:, None] == tf.range(num_views)[None, :]
    not_self = ~(same_sample[:, None, :, None] & same_view[None, :, None, :])
    shares_label = share_label(labels, contrast_labels)
    positives = shares_label[:, None, :, None] & not_self
    negatives = ~shares_label[:, None, :, None] & not_self
    if positives_cap is not None:
        same_class = shares_label & ~same_sample
        rank = tf.cumsum(tf.cast(same_class, tf.int32), axis=1)
        kept = same_sample | (rank <= positives_cap // num_views)
        positives &= kept[:, None, :, None]
    return masked_supcon(logits, positives, negatives, summation=summation, denominator=denominator)


def masked_supcon(
    logits: tf.Tensor,
    positives: tf.Tensor,
    negatives: tf.Tensor,
    *,
    summation: Summation,
    denominator: Denominator,
) -> tf.Tensor:
    """SupCon from similarities and the masks of positives and negatives.

    Args:
      logits: float32 [N, A, M, V], s of view a of anchor n with view v of contrast sample m.
      positives, negatives: disjoint bool masks that broadcast to logits; rows in neither are
        excluded from the contrast set.
      summation, denominator: as in `supcon_loss`.

    Returns:
      float32 [N], the mean over A, not scaled by the temperature.
    """
    if denominator == "one_positive":
        # s - log(exp(s) + sum over negatives), stable also without any negative.
        log_ratio = -tf.math.softplus(_masked_logsumexp(logits, negatives) - logits)
    else:
        in_denominator = positives | negatives if denominator == "all" else negatives
        log_ratio = logits - _masked_logsumexp(logits, in_denominator)

    num_positives = tf.reduce_sum(tf.cast(positives, tf.float32), axis=[2, 3])
    divisor = tf.maximum(num_positives, 1.0)
    if summation == "outside":
        losses = -tf.reduce_sum(tf.where(positives, log_ratio, 0.0), axis=[2, 3]) / divisor
    else:
        losses = tf.math.log(divisor) - _masked_logsumexp(log_ratio, positives)[:, :, 0, 0]
    defined = num_positives > 0
    if denominator == "only_negatives":
        defined &= tf.reduce_any(negatives, axis=[2, 3])
    # [N, A] -> [N]
    return tf.reduce_mean(tf.where(defined, losses, 0.0), axis=1)


def _masked_logsumexp(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Log-sum-exp over the last two axes; if empty, a huge negative number with gradient 0."""
    values = tf.where(mask, values, values.dtype.min)
    return tf.reduce_logsumexp(values, axis=[2, 3], keepdims=True)
