"""Mean similarities to positives from sums over labels: neither N x N masks nor tiles.

With weights w_ij = u_i . y_j, the sum over j of w_ij s_ij is z_i . (u_i^T Y^T Z): a product with
one sum of rows per label. The anchor's own term is subtracted.
"""

from typing import Literal

import tensorflow as tf

from supcon_tf.losses.multiview import class_ranges
from supcon_tf.losses.pairs import MultiviewBatch

MultiLabel = Literal["any", "per_label", "overlap"]


def weighted_similarity(
    batch: MultiviewBatch, weights: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Weighted mean over A(i) of s_ij, and the sum of the weights: float32 [R] each.

    Both are 0 where the weights of an anchor are.

    Args:
      batch: of class numbers, w_ij = 1 for the positives, or of rows [N, C].
      weights: u of the anchor samples, float32 [N, C]; None for their label rows.
    """
    # In float64: the sum contains the anchor's own term, whose rounding error would dominate
    # where few positives remain.
    anchors, contrast = tf.cast(batch.anchors, tf.float64), tf.cast(batch.contrast, tf.float64)
    num_views = tf.ones_like(contrast[:, 0, :1]) * contrast.shape[1]
    # [M, V, D] -> [M, D + 1]
    values = tf.concat([tf.reduce_sum(contrast, axis=1), num_views], axis=1)
    if batch.labels.shape.rank == 1:
        sums = _sums_of_class(batch.labels, batch.contrast_labels, values)
        own = tf.ones_like(sums[:, :1])
    else:
        labels = tf.cast(batch.labels, tf.float64)
        u = labels if weights is None else tf.cast(weights, tf.float64)
        label_sums = tf.matmul(tf.cast(batch.contrast_labels, tf.float64), values, transpose_a=True)
        sums = tf.matmul(u, label_sums)
        own = tf.reduce_sum(u * labels, axis=1, keepdims=True)
    # The anchors' own rows of the contrast set, which may have no gradient.
    own_rows = anchors
    if batch.anchors is not batch.contrast:
        own_rows = contrast[batch.first_row : batch.first_row + tf.shape(anchors)[0]]
        own_rows = own_rows[:, : anchors.shape[1]]
    # [N, D + 1] -> [N, A]
    totals = tf.repeat(sums[:, -1:] - own, anchors.shape[1], axis=1)
    products = tf.reduce_sum(anchors * (sums[:, None, :-1] - own[:, None] * own_rows), axis=2)
    # Without another row of its labels, rounding may leave a little more than nothing.
    is_defined = totals > 1e-12 * own
    means = tf.where(is_defined, products / tf.where(is_defined, totals, 1.0), 0.0)
    return tuple(
        tf.cast(tf.reshape(x, [-1]), tf.float32) for x in (means, tf.where(is_defined, totals, 0.0))
    )


def label_weights(batch: MultiviewBatch, multi_label: MultiLabel) -> tf.Tensor | None:
    """The weights u of `weighted_similarity` for label rows of zeros and ones.

    "overlap": a positive's weight is the number of shared labels. "per_label": the mean over the
    anchor's labels, those with a positive, of the mean over the positives with this label.
    """
    if multi_label == "overlap":
        return None
    num_rows = tf.reduce_sum(batch.contrast_labels, axis=0) * batch.contrast.shape[1]
    per_label = tf.where(num_rows > 1, batch.labels / tf.maximum(num_rows - 1, 1.0), 0.0)
    num_labels = tf.reduce_sum(tf.where(num_rows > 1, batch.labels, 0.0), axis=1, keepdims=True)
    return per_label / tf.maximum(num_labels, 1.0)


def _sums_of_class(labels: tf.Tensor, contrast_labels: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """For each label the sum of the values [M, K] of its class: [N, K]."""
    begin, _ = class_ranges(labels, contrast_labels)
    contrast_begin, _ = class_ranges(contrast_labels, contrast_labels)
    sums = tf.math.unsorted_segment_sum(values, contrast_begin, tf.size(contrast_labels))
    return tf.gather(sums, begin)
