"""Pairs as the whole similarity matrix: supports any mask, in quadratic memory."""

from typing import Literal

import tensorflow as tf

from supcon_tf.losses.multiview import share_label

# The rows in a sum of exponentials.
Entries = Literal["all", "negatives"]
# The logarithm of an empty sum: adding any logit to it in float32 leaves it unchanged.
LOG_ZERO = -1e30


class DensePairs:
    """`pairs.Pairs` from a matrix of similarities and masks.

    Args:
      similarities: float32 [R, S], s of anchor row i with contrast row j.
      positives, negatives: disjoint bool [R, S]; rows in neither are not in the contrast set.
    """

    def __init__(self, similarities: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor):
        self._similarities = similarities
        self._positives, self._negatives = positives, negatives

    @classmethod
    def of_batch(
        cls,
        labels: tf.Tensor,
        anchors: tf.Tensor,
        contrast_labels: tf.Tensor,
        contrast: tf.Tensor,
        first_row: tf.Tensor,
        *,
        positives_cap: int | None = None,
        positive_mask: tf.Tensor | None = None,
    ) -> "DensePairs":
        """The pairs of a `MultiviewBatch`; options as in `make_pairs`."""
        num_anchor_views, num_views, dim = anchors.shape[1], contrast.shape[1], contrast.shape[2]
        rows, columns = tf.shape(anchors)[0], tf.shape(contrast)[0]
        similarities = tf.matmul(
            tf.reshape(anchors, [-1, dim]), tf.reshape(contrast, [-1, dim]), transpose_b=True
        )
        same_sample = (first_row + tf.range(rows))[:, None] == tf.range(columns)[None, :]
        same_view = tf.range(num_anchor_views)[:, None] == tf.range(num_views)[None, :]
        shares = share_label(labels, contrast_labels) if positive_mask is None else positive_mask
        if positive_mask is not None:
            shares |= same_sample
        kept = shares
        if positives_cap is not None:
            rank = tf.cumsum(tf.cast(shares & ~same_sample, tf.int32), axis=1)
            kept &= same_sample | (rank <= positives_cap // num_views)
        # [N, M] -> [N, A, M, V]
        not_self = ~(same_sample[:, None, :, None] & same_view[None, :, None, :])
        shape = tf.shape(similarities)
        return cls(
            similarities,
            tf.reshape(kept[:, None, :, None] & not_self, shape),
            tf.reshape(~shares[:, None, :, None] & not_self, shape),
        )

    def log_sum(self, entries: Entries, row_log_weights: tf.Tensor | None = None) -> tf.Tensor:
        """See `pairs.Pairs`."""
        mask = self._negatives
        if entries == "all":
            mask |= self._positives
        s = self._similarities
        return _masked_log_sum(s if row_log_weights is None else s + row_log_weights, mask)

    def positive_mean(self, log_negatives: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """See `pairs.Pairs`."""
        terms = tf.where(self._positives, self._positive_terms(log_negatives), 0.0)
        count = self._num_positives()
        return tf.reduce_sum(terms, axis=1) / tf.maximum(count, 1.0), count

    def positive_log_sum(
        self, log_negatives: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `pairs.Pairs`."""
        terms = self._positive_terms(log_negatives)
        return _masked_log_sum(terms, self._positives), self._num_positives()

    def nearest(self) -> tuple[tf.Tensor, tf.Tensor]:
        """See `pairs.Pairs`."""
        s = tf.stop_gradient(self._similarities)
        to_positive, to_negative = (
            tf.reduce_max(tf.where(mask, s, LOG_ZERO), axis=1)
            for mask in (self._positives, self._negatives)
        )
        return to_positive, to_negative

    def _positive_terms(self, log_negatives: tf.Tensor | None) -> tf.Tensor:
        if log_negatives is None:
            return self._similarities
        return tf.math.log_sigmoid(self._similarities - log_negatives[:, None])

    def _num_positives(self) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(self._positives, tf.float32), axis=1)


def _masked_log_sum(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Log-sum-exp over the last axis; LOG_ZERO with gradient 0 if empty."""
    return tf.reduce_logsumexp(tf.where(mask, values, LOG_ZERO), axis=1)
