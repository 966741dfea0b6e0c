"""Views and labels in the form that the contrastive losses compute with."""

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
    """Rows of length one. Dividing by the largest entry first avoids overflow and underflow."""
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(features), axis=-1, keepdims=True))
    return tf.math.l2_normalize(features / tf.where(largest > 0, largest, 1.0), axis=-1)


def as_labels(labels: Any, features: tf.Tensor, first_row: tf.Tensor) -> tf.Tensor:
    """Labels in one of two forms: int64 [N] class numbers, or float32 [N, C] of zeros and ones.

    Args:
      labels: None, integers [N] or [N, 1], or one-hot or multi-hot [N, C].
      features: [N, V, D].
      first_row: position of this replica's first sample in the global batch; without labels,
        a sample's class is its position.

    Raises:
      UserError: labels of another shape or dtype.
    """
    if labels is None:
        return tf.cast(first_row + tf.range(tf.shape(features)[0]), tf.int64)
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
    """Raises UserError unless > 0. The value of a tensor is not checked."""
    if isinstance(temperature, int | float) and not temperature > 0:
        raise UserError(f"temperature must be > 0, got {temperature}")


def share_label(labels: tf.Tensor, contrast_labels: tf.Tensor) -> tf.Tensor:
    """Whether two samples share a label: [N] and [M], or [N, C] and [M, C] -> bool [N, M]."""
    if labels.shape.rank == 1:
        return labels[:, None] == contrast_labels[None, :]
    return tf.matmul(labels, contrast_labels, transpose_b=True) > 0


def class_ranges(labels: tf.Tensor, contrast_labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Begin and end of each label's class in the sorted contrast labels.

    `begin` is a number of the class within [0, M), and end - begin counts its samples. This needs
    no [N, M] matrix, and all shapes are static, as XLA requires.

    Args:
      labels: int64 [N].
      contrast_labels: int64 [M].

    Returns:
      int32 [N] each.
    """
    in_order = tf.sort(contrast_labels)
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
    # The sample itself counts too.
    is_shared = tf.reduce_sum(contrast_labels, axis=0) > 1
    return tf.reduce_any((labels > 0) & is_shared, axis=1)


def rescale_to_samples_with_positives(
    values: tf.Tensor, labels: Any, features: Any, *, positives_cap: int | None = None
) -> tf.Tensor:
    """Scales [N] values so that their mean is the mean over the samples with a positive.

    The counts are over the global batch, so all replicas use the same factor.
    """
    features = as_views(features)
    labels = as_labels(labels, features, distribution.first_row(tf.shape(features)[0]))
    mask = has_positive(
        labels,
        distribution.gather(labels),
        num_views=features.shape[1],
        positives_cap=positives_cap,
    )
    return rescale_to_masked_mean(values, mask)


def rescale_to_masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Scales [N] values so that their global mean is the mean over `mask`, bool [N]."""
    # TensorFlow does not gather booleans.
    counted = distribution.gather(tf.cast(mask, tf.float32))
    return tf.math.divide_no_nan(values, tf.reduce_mean(counted))
