"""Mean similarities to positives from sums over labels: neither N x N masks nor tiles.

With weights w_ij = u_i . y_j, the sum over j of w_ij s_ij is z_i . (u_i^T Y^T Z): a product with
one sum of rows per label. The anchor's own term is subtracted, which is precise where it is not
larger than the rest of the sum. For label rows of several scales it may be: the sample with the
largest weight of a label therefore takes the label's sum over the other samples.
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
    # All views of the anchors' samples in the contrast set, which may have no gradient.
    own_views = anchors
    if batch.anchors is not batch.contrast:
        own_views = contrast[batch.first_row : batch.first_row + tf.shape(anchors)[0]]
        # Otherwise one row and an unknown number of rows would give an unknown number.
        own_views.set_shape([anchors.shape[0], *own_views.shape[1:]])
    own_views = tf.concat([own_views, tf.ones_like(own_views[..., :1])], axis=2)  # [N, V, D + 1]
    if batch.labels.shape.rank == 1:
        sums = _sums_of_class(batch.labels, batch.contrast_labels, values)
        sums = sums[:, None] - own_views[:, : anchors.shape[1]]
    else:
        sums = _sums_of_labels(batch, weights, values, own_views)
    totals = sums[..., -1]
    products = tf.reduce_sum(anchors * sums[..., :-1], axis=2)
    is_defined = totals > 0
    means = tf.where(is_defined, products / tf.where(is_defined, totals, 1.0), 0.0)
    # float32 would round a tiny sum of weights to 0.
    totals = tf.where(is_defined, tf.maximum(totals, 1e-30), 0.0)
    return tuple(tf.cast(tf.reshape(x, [-1]), tf.float32) for x in (means, totals))


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


def _sums_of_labels(
    batch: MultiviewBatch,
    weights: tf.Tensor | None,
    values: tf.Tensor,
    own_views: tf.Tensor,
) -> tf.Tensor:
    """For each anchor row the sum over A(i) of w_ij and its row j: float64 [N, A, D + 1].

    Args:
      batch: of label rows [N, C].
      weights: as in `weighted_similarity`.
      values: float64 [M, D + 1], sums over the views of each contrast sample.
      own_views: float64 [N, V, D + 1], the views of the anchors' samples.
    """
    labels = tf.cast(batch.labels, tf.float64)
    contrast_labels = tf.cast(batch.contrast_labels, tf.float64)
    u = labels if weights is None else tf.cast(weights, tf.float64)
    top = tf.argmax(contrast_labels, axis=0, output_type=tf.int32)  # [C]
    without_top = contrast_labels * (
        1 - tf.one_hot(top, tf.shape(values)[0], axis=0, dtype=u.dtype)
    )
    numbers = batch.first_row + tf.range(tf.shape(labels)[0])
    is_top = numbers[:, None] == top[None]  # [N, C]
    u_top, u = tf.where(is_top, u, 0.0), tf.where(is_top, tf.zeros_like(u), u)
    # [N, C] and [C, D + 1] -> [N, D + 1]
    sums = tf.matmul(u, tf.matmul(contrast_labels, values, transpose_a=True))
    sums += tf.matmul(u_top, tf.matmul(without_top, values, transpose_a=True))
    own = tf.reduce_sum(u * labels, axis=1)[:, None, None]
    own_top = tf.reduce_sum(u_top * labels, axis=1)[:, None, None]
    num_anchors, num_views = batch.anchors.shape[1], own_views.shape[1]
    # [A, V] and [N, V, D + 1] -> [N, A, D + 1]; a difference would not be precise.
    other_views = tf.matmul(1 - tf.eye(num_anchors, num_views, dtype=u.dtype), own_views)
    return sums[:, None] - own * own_views[:, :num_anchors] + own_top * other_views


def _sums_of_class(labels: tf.Tensor, contrast_labels: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """For each label the sum of the values [M, K] of its class: [N, K]."""
    begin, _ = class_ranges(labels, contrast_labels)
    contrast_begin, _ = class_ranges(contrast_labels, contrast_labels)
    sums = tf.math.unsorted_segment_sum(values, contrast_begin, tf.size(contrast_labels))
    return tf.gather(sums, begin)
