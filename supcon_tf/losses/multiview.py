"""Converts views and labels to the form that the contrastive losses use."""

from numbers import Real
from typing import Any

import keras
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


def as_labels(
    labels: Any, features: tf.Tensor, first_row: tf.Tensor, *, check_rows: bool = True
) -> tf.Tensor:
    """Labels in one of two forms: int64 [N] class numbers, or float32 [N, C] of zeros and ones.

    Args:
      labels: None, class numbers (see `class_numbers`), or one-hot or multi-hot rows [N, C].
      features: [N, V, D].
      first_row: position of this replica's first sample in the global batch; without labels,
        a sample's class is its position.
      check_rows: whether to reject rows with other entries than 0 and 1; else positive entries
        count as 1.

    Raises:
      UserError: labels of another shape, dtype or value.
    """
    if labels is None:
        return tf.cast(first_row + tf.range(tf.shape(features)[0]), tf.int64)
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank not in (1, 2):
        raise UserError(f"labels must be [N], [N, C] or None, got shape {labels.shape}")
    check_same_length(labels, features)
    numbers = class_numbers(labels)
    if numbers is not None:
        return numbers
    if labels.shape.rank == 1:
        raise UserError(f"labels [N] must be integers, got {labels.dtype.name}: cast them to int64")
    if check_rows and not labels.dtype.is_bool:
        advice = "mixed or smoothed labels are not class memberships"
        if labels.dtype.is_integer and labels.shape[1] == features.shape[1]:
            advice = "labels per view [N, V] are not supported, give one label per sample [N]"
        require(
            tf.reduce_all((labels == 0) | (labels == 1)),
            f"label rows [N, C] must be 0 or 1: {advice}",
            labels,
        )
    return tf.cast(tf.cast(labels, tf.float32) > 0, tf.float32)


def class_numbers(labels: tf.Tensor) -> tf.Tensor | None:
    """Class numbers int64 [N], or None for labels of another form.

    Args:
      labels: integers or booleans [N] or [N, 1], or whole floats [N, 1], which
        `keras.utils.image_dataset_from_directory(label_mode="binary")` returns.

    Raises:
      UserError: floats [N, 1] that are not whole numbers.
    """
    is_column = labels.shape.rank == 2 and labels.shape[1] == 1
    if labels.dtype.is_floating and is_column:
        require(
            # Larger float32 numbers merge neighbouring classes.
            tf.reduce_all((tf.round(labels) == labels) & (tf.abs(labels) <= 2**24)),
            "float labels [N, 1] must be whole numbers up to 2^24",
            labels,
        )
    elif not (labels.dtype.is_integer or labels.dtype.is_bool) or not (
        is_column or labels.shape.rank == 1
    ):
        return None
    return tf.cast(labels[:, 0] if is_column else labels, tf.int64)


def class_targets(
    labels: Any, num_classes: int, *, ignore_class: int | None = None
) -> tuple[tf.Tensor, bool]:
    """Labels of mutually exclusive classes: (int64 [N], True), or (float32 [N, C], False).

    Args:
      labels: class numbers in [0, C) (see `class_numbers`), or rows [N, C] of probabilities. A row
        of zeros has no label.
      num_classes: C.
      ignore_class: a number that is allowed too.

    Raises:
      UserError: a single class, or labels of another shape, dtype or value.
    """
    if num_classes == 1:
        raise UserError(
            "softmax cross-entropy of one score is always 0: use BinaryCrossEntropyLoss, or two "
            "scores"
        )
    labels = tf.convert_to_tensor(labels)
    numbers = class_numbers(labels)
    if numbers is not None:
        is_valid = (numbers >= 0) & (numbers < num_classes)
        if ignore_class is not None:
            is_valid |= numbers == ignore_class
        require(
            tf.reduce_all(is_valid),
            f"class numbers must be in [0, {num_classes})",
            numbers,
        )
        return numbers, True
    if labels.shape.rank != 2 or labels.shape[1] != num_classes:
        raise UserError(
            f"labels must be integers [N] or rows [N, {num_classes}], got {labels.dtype.name} "
            f"of shape {labels.shape}"
        )
    rows = tf.cast(labels, tf.float32)
    require(
        # The tolerance covers probabilities in bfloat16.
        tf.reduce_all(rows >= 0) & tf.reduce_all(tf.reduce_sum(rows, axis=1) < 1.02),
        "label rows must be probabilities that sum to 1: several labels per image need "
        "BinaryCrossEntropyLoss",
        rows,
    )
    return rows, False


def require(condition: tf.Tensor, message: str, labels: tf.Tensor) -> None:
    """Raises UserError unless the condition holds; in a graph an assertion raises at run time."""
    if not tf.executing_eagerly():
        tf.debugging.Assert(condition, [message, labels], summarize=8)
    elif not condition:
        values = labels.numpy()
        raise UserError(f"{message}; got values from {values.min()} to {values.max()}")


def check_same_length(labels: tf.Tensor, features: tf.Tensor) -> None:
    """Raises UserError unless labels and features or logits have the same N, if it is known."""
    if not labels.shape[:1].is_compatible_with(features.shape[:1]):
        raise UserError(
            f"labels and features must agree in N, got {labels.shape[0]} labels "
            f"and {features.shape[0]} samples"
        )


def check_temperature(temperature: Any) -> None:
    """Raises UserError unless > 0. The value of a tensor is not checked."""
    if isinstance(temperature, Real) and not float(temperature) > 0:
        raise UserError(f"temperature must be > 0, got {temperature}")


def reject_variable(temperature: Any) -> None:
    """Raises UserError for a variable as the temperature of a loss class."""
    if isinstance(temperature, tf.Variable | keras.Variable):
        raise UserError(
            "temperature must be a number, got a variable, which Keras would neither train nor "
            "save: pass a variable to the loss function in a train_step of your own"
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
    first_row = distribution.first_row(tf.shape(features)[0])
    # The loss has already checked the rows.
    labels = as_labels(labels, features, first_row, check_rows=False)
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
