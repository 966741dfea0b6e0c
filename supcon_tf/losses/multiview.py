"""The multiviewed batch that contrastive losses share: views, labels, and who shares a label."""

from typing import Any

import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError


def as_views(features: Any) -> tf.Tensor:
    """Features [N, V, ...] of any float dtype -> float32 [N, V, D].

    Raises:
      UserError: no view axis, no view, or not a float dtype.
    """
    features = tf.convert_to_tensor(features)
    if not features.dtype.is_floating:
        raise UserError(f"features must be floats, got {features.dtype.name}")
    if features.shape.rank is None or features.shape.rank < 3:
        raise UserError(
            f"features must be [N, V, ...] with a view axis, got shape {features.shape}; "
            "one view is features[:, None]"
        )
    num_views = features.shape[1]
    if not num_views:
        raise UserError(f"the number of views must be known and >= 1, got shape {features.shape}")
    dim = features.shape[2:].num_elements()
    if dim is None:
        raise UserError(f"the feature axes must have known sizes, got shape {features.shape}")
    return tf.reshape(tf.cast(features, tf.float32), [-1, num_views, dim])


def l2_normalize(features: tf.Tensor) -> tf.Tensor:
    """Rows of length one. Dividing by the largest entry first keeps huge and tiny rows exact."""
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(features), axis=-1, keepdims=True))
    return tf.math.l2_normalize(features / tf.where(largest > 0, largest, 1.0), axis=-1)


def as_labels(labels: Any, features: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    """Labels in one of two forms: int64 [N] class numbers, or float32 [N, C] of zeros and ones.

    Args:
      labels: None, integers [N] or [N, 1], or one-hot or multi-hot [N, C].
      features: [N, V, D].
      first: global position of this replica's first sample; without labels, a sample's position
        is its class.

    Raises:
      UserError: another rank, floats where class numbers are meant, or not N of them.
    """
    if labels is None:
        return tf.cast(first + tf.range(tf.shape(features)[0]), tf.int64)
    labels = tf.convert_to_tensor(labels)
    is_integer = labels.dtype.is_integer or labels.dtype.is_bool
    if labels.shape.rank == 2 and labels.shape[1] == 1 and labels.dtype.is_integer:
        labels = labels[:, 0]
    if labels.shape.rank not in (1, 2):
        raise UserError(f"labels must be [N], [N, C] or None, got shape {labels.shape}")
    if labels.shape.rank == 1 and not is_integer:
        raise UserError(
            f"labels [N] must be integers, got {labels.dtype.name}: floats merge large labels"
        )
    if not labels.shape[:1].is_compatible_with(features.shape[:1]):
        raise UserError(
            f"labels and features must agree in N, got {labels.shape[0]} labels "
            f"and {features.shape[0]} samples"
        )
    if labels.shape.rank == 1:
        return tf.cast(labels, tf.int64)
    return tf.cast(tf.cast(labels, tf.float32) > 0, tf.float32)


def check_temperature(temperature: Any) -> None:
    """Refuses what is not > 0; of a tensor or a variable the value is not known here."""
    if isinstance(temperature, int | float) and not temperature > 0:
        raise UserError(f"temperature must be > 0, got {temperature}")


def share_label(labels: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Whether two samples share a label: [N] and [M], or [N, C] and [M, C] -> bool [N, M]."""
    if labels.shape.rank == 1:
        return labels[:, None] == others[None, :]
    return tf.matmul(labels, others, transpose_b=True) > 0


def class_ranges(labels: tf.Tensor, others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where each label's class begins and ends in `others` sorted: int64 [N], [M] -> int32 [N] x 2.

    The begin numbers the classes within [0, M), and end - begin counts them, both without an
    [N, M] matrix and with shapes that compile.
    """
    in_order = tf.sort(others)
    begin = tf.searchsorted(in_order, labels, side="left")
    end = tf.searchsorted(in_order, labels, side="right")
    return begin, end


def has_positive(
    labels: tf.Tensor,
    contrast_labels: tf.Tensor,
    *,
    num_views: int,
    positives_cap: int | None = None,
) -> tf.Tensor:
    """Whether a sample has a positive in the contrast set: bool [N]."""
    if num_views > 1:
        if labels.shape.rank == 1:
            return tf.ones_like(labels, tf.bool)
        return tf.reduce_any(labels > 0, axis=1)
    if positives_cap == 0:
        return tf.zeros(tf.shape(labels)[:1], tf.bool)
    if labels.shape.rank == 1:
        begin, end = class_ranges(labels, contrast_labels)
        return end - begin > 1
    # The sample itself is one of those that have the label.
    is_shared = tf.reduce_sum(contrast_labels, axis=0) > 1
    return tf.reduce_any((labels > 0) & is_shared, axis=1)


def rescale_to_samples_with_positives(
    values: tf.Tensor, labels: Any, features: Any, *, positives_cap: int | None = None
) -> tf.Tensor:
    """Scales [N] values so that their mean is the mean over samples that have a positive.

    Both counts are over the global batch, so that the replicas agree on the factor.
    """
    features = as_views(features)
    first = distribution.first_row(tf.shape(features)[0])
    labels = as_labels(labels, features, first)
    with_positive = has_positive(
        labels,
        distribution.gather(labels),
        num_views=features.shape[1],
        positives_cap=positives_cap,
    )
    return rescale_to_masked_mean(values, with_positive)


def rescale_to_masked_mean(values: tf.Tensor, with_positive: tf.Tensor) -> tf.Tensor:
    """Scales [N] values so that their mean over all replicas is the mean over `with_positive`."""
    # Floats, because a gather of booleans is refused.
    counted = distribution.gather(tf.cast(with_positive, tf.float32))
    mean = tf.reduce_mean(counted)
    return tf.math.divide_no_nan(values, mean)
