"""Views, their temperature and their positives, in the form that the contrastive losses use."""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError, check_number
from supcon_tf.losses.labels import as_labels, to_tensor


def as_views(features: Any) -> tf.Tensor:
    """Features [N, V, ...] of any float dtype -> float32 [N, V, D].

    Raises:
      UserError: no view axis, no view, or not a float dtype.
    """
    features = to_tensor("features", features)
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
    """Rows of length one; a row of zeros stays, without a gradient, which would be huge.

    Dividing by the largest entry first avoids overflow and underflow.
    """
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(features), axis=-1, keepdims=True))
    # NaN is no zero.
    is_zero = largest == 0
    rows = tf.math.l2_normalize(features / tf.where(is_zero, 1.0, largest), axis=-1)
    return tf.where(is_zero, 0.0, rows)


def check_temperature(temperature: Any) -> Any:
    """Returns a number > 0 as a float, or a scalar tensor in float32, whose value is not checked.

    Raises:
      UserError: another value or shape.
    """
    if not isinstance(temperature, tf.Tensor | tf.Variable | keras.Variable):
        check_number("temperature", temperature, above=0)
        return float(temperature)
    if len(temperature.shape):
        raise UserError(f"temperature must be a scalar, got shape {tuple(temperature.shape)}")
    return tf.cast(tf.convert_to_tensor(temperature), tf.float32)


def reject_variable(temperature: Any) -> None:
    """Raises UserError for a variable or tensor as the temperature of a loss class."""
    if isinstance(temperature, tf.Variable | keras.Variable | tf.Tensor):
        kind = "tensor" if isinstance(temperature, tf.Tensor) else "variable"
        raise UserError(
            f"temperature must be a number, got a {kind}, which Keras would neither train nor "
            "save: pass it to the loss function in a train_step of your own"
        )


def share_label(labels: tf.Tensor, contrast_labels: tf.Tensor) -> tf.Tensor:
    """Whether two samples share a label: [N] and [M], or [N, C] and [M, C] -> bool [N, M]."""
    if labels.shape.rank == 1:
        return labels[:, None] == contrast_labels[None, :]
    return tf.matmul(labels, contrast_labels, transpose_b=True) > 0


def class_ranges(labels: tf.Tensor, contrast_labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Begin and end of each label's class in the sorted contrast labels.

    `begin` is in [0, M) and identifies the class; end - begin is its number of samples. This needs
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
) -> tf.Tensor:
    """Whether a sample has a positive in the contrast set: bool [N]."""
    if num_views > 1:
        if labels.shape.rank == 1:
            return tf.ones_like(labels, tf.bool)
        return tf.reduce_any(labels > 0, axis=1)
    if labels.shape.rank == 1:
        begin, end = class_ranges(labels, contrast_labels)
        return end - begin > 1
    # The sample itself counts too.
    is_shared = tf.reduce_sum(contrast_labels, axis=0) > 1
    return tf.reduce_any((labels > 0) & is_shared, axis=1)


def rescale_to_samples_with_positives(values: tf.Tensor, labels: Any, features: Any) -> tf.Tensor:
    """Scales [N] values so that their mean is the mean over the samples with a positive.

    The counts are over the global batch, so all replicas use the same factor.
    """
    features = as_views(features)
    first_row = distribution.first_row(tf.shape(features)[0])
    # The loss has already checked the rows.
    labels, _ = as_labels(labels, features, first_row, check_rows=False)
    mask = has_positive(
        labels,
        distribution.gather(labels),
        num_views=features.shape[1],
    )
    return rescale_to_masked_mean(values, mask)


def rescale_to_masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Scales [N] values so that their global mean is the mean over `mask`, bool [N]."""
    # TensorFlow does not gather booleans.
    counted = distribution.gather(tf.cast(mask, tf.float32))
    # reduce_mean of an empty batch is NaN.
    size = tf.cast(tf.size(counted), tf.float32)
    share = tf.math.divide_no_nan(tf.reduce_sum(counted), size)
    return tf.math.divide_no_nan(values, share)
