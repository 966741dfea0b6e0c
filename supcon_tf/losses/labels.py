"""Labels in the forms that the losses use, and the checks of what users give."""

from typing import Any

import tensorflow as tf

from supcon_tf.errors import UserError

# The whole numbers up to 2^bits are exact; larger ones merge neighbouring classes.
_EXACT_BITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


def to_tensor(name: str, values: Any) -> tf.Tensor:
    """Converts an array or nested lists of numbers or booleans to a tensor.

    Raises:
      UserError: None, text, or rows of different lengths.
    """
    if values is None:
        raise UserError(f"{name} must be given, got None")
    try:
        tensor = tf.convert_to_tensor(values)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} must be an array of numbers: {reason}") from None
    if not (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool):
        raise UserError(f"{name} must be numbers, got {tensor.dtype.name}")
    return tensor


def as_labels(
    labels: Any, features: tf.Tensor, first_row: tf.Tensor, *, check_rows: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels as int64 [N] class numbers or float32 [N, C] of zeros and ones, and their validity.

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
        return tf.cast(first_row + tf.range(tf.shape(features)[0]), tf.int64), tf.ones([])
    labels = to_tensor("labels", labels)
    if labels.shape.rank not in (1, 2) or labels.shape[1:].num_elements() == 0:
        raise UserError(f"labels must be [N], [N, C] or None, got shape {labels.shape}")
    validity = check_same_length(labels, features)
    numbers, are_whole = class_numbers(labels)
    if numbers is not None:
        return numbers, validity * are_whole
    if labels.shape.rank == 1:
        raise UserError(
            f"labels [N] must be integers, got {labels.dtype.name}: cast them to int64, and give "
            "compile a loss class such as SupConLoss(), as Keras casts labels for a function"
        )
    rows = tf.cast(labels, tf.float32)
    if check_rows:
        per_view = "labels per view [N, V] are not supported, give one label per sample [N]"
        has_view_columns = labels.shape[1] == features.shape[1]
        advice = "mixed or smoothed labels are weights, SoftSupConLoss takes them"
        if labels.dtype.is_integer and has_view_columns:
            advice = per_view
        validity *= require(
            tf.reduce_all((rows == 0) | (rows == 1)),
            f"label rows [N, C] must be 0 or 1: {advice}",
            labels,
        )
        if has_view_columns:
            # In one-hot rows of V classes the entries differ.
            entries_differ = tf.reduce_any(rows != rows[:, :1])
            validity *= require(entries_differ | tf.reduce_all(rows == 0), per_view, labels)
    return tf.cast(rows > 0, tf.float32), validity


def class_numbers(labels: tf.Tensor) -> tuple[tf.Tensor | None, tf.Tensor]:
    """Class numbers int64 [N], or None for labels of another form; and their validity.

    Args:
      labels: integers or booleans [N] or [N, 1], or whole floats [N, 1], which
        `keras.utils.image_dataset_from_directory(label_mode="binary")` returns.

    Raises:
      UserError: floats [N, 1] that are not whole numbers.
    """
    is_column, validity = labels.shape.rank == 2 and labels.shape[1] == 1, tf.ones([])
    if labels.dtype.is_floating and is_column:
        bits = _EXACT_BITS.get(labels.dtype.name, 0)
        numbers = tf.cast(labels, tf.float64)
        validity = require(
            tf.reduce_all((tf.round(numbers) == numbers) & (tf.abs(numbers) <= 2.0**bits)),
            f"{labels.dtype.name} labels [N, 1] must be whole numbers up to 2^{bits}",
            labels,
        )
    elif not (labels.dtype.is_integer or labels.dtype.is_bool) or not (
        is_column or labels.shape.rank == 1
    ):
        return None, validity
    return tf.cast(labels[:, 0] if is_column else labels, tf.int64), validity


def class_targets(
    labels: Any, logits: tf.Tensor, *, ignore_class: int | None = None
) -> tuple[tf.Tensor, bool, tf.Tensor]:
    """Labels of mutually exclusive classes, whether they are class numbers, and their validity.

    Args:
      labels: class numbers in [0, C) (see `class_numbers`), or rows [N, C] of probabilities. A row
        of zeros has no label.
      logits: [N, C], or any scores of the classes.
      ignore_class: a number that is allowed too.

    Returns:
      Labels int64 [N] and True, or float32 [N, C] and False; and their validity.

    Raises:
      UserError: a single class, or labels of another shape, dtype or value.
    """
    if logits.shape.rank != 2 or logits.shape[1] is None:
        raise UserError(f"logits must be [N, C] with a known C, got shape {logits.shape}")
    num_classes = logits.shape[1]
    if num_classes == 1:
        raise UserError(
            "softmax cross-entropy of one score is always 0: use BinaryCrossEntropyLoss, or two "
            "scores"
        )
    labels = to_tensor("labels", labels)
    numbers, validity = class_numbers(labels)
    validity *= check_same_length(labels, logits)
    if numbers is not None:
        is_valid = (numbers >= 0) & (numbers < num_classes)
        if ignore_class is not None:
            is_valid |= numbers == ignore_class
        validity *= require(
            tf.reduce_all(is_valid), f"class numbers must be in [0, {num_classes})", numbers
        )
        # So that no operation complains before the assertion.
        return tf.where(is_valid, numbers, 0), True, validity
    if labels.shape.rank != 2 or labels.shape[1] != num_classes:
        raise UserError(
            f"labels must be integers [N] or rows [N, {num_classes}], got {labels.dtype.name} "
            f"of shape {labels.shape}"
        )
    rows = tf.cast(labels, tf.float32)
    sums = tf.reduce_sum(rows, axis=1)
    validity *= require(
        # The tolerance covers probabilities in bfloat16.
        tf.reduce_all(rows >= 0) & tf.reduce_all((sums == 0) | (tf.abs(sums - 1) < 0.02)),
        "label rows must be probabilities that sum to 1: several labels per image need "
        "BinaryCrossEntropyLoss",
        rows,
    )
    return rows, False, validity


def one_class_per_sample(labels: Any, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Class numbers int64 [N] in [0, C), of class numbers or one-hot rows, and their validity.

    Args:
      labels: class numbers in [0, C), or one-hot rows [N, C].
      scores: [N, C], of which only the shape matters.

    Raises:
      UserError: labels of another shape, dtype or value.
    """
    labels, are_numbers, validity = class_targets(labels, scores)
    if are_numbers:
        return labels, validity
    validity *= require(
        tf.reduce_all(tf.reduce_max(labels, axis=1) == 1),
        "label rows must be one-hot: mixed labels belong to soft_supcon_loss",
        labels,
    )
    return tf.argmax(labels, axis=1), validity


def require(condition: tf.Tensor, message: str, labels: tf.Tensor) -> tf.Tensor:
    """The validity of labels, float32 []: 1 if the condition on them holds.

    Every loss multiplies its values by it, because XLA drops assertions (Keras compiles `fit` with
    XLA on GPUs by default). There it is NaN if the condition does not hold.

    Raises:
      UserError: it does not hold. In a graph without XLA, InvalidArgumentError at run time.
    """
    if tf.executing_eagerly():
        if not condition:
            values = labels.numpy()
            raise UserError(f"{message}; got values from {values.min()} to {values.max()}")
        return tf.ones([])
    tf.debugging.Assert(condition, [message, labels], summarize=8)
    # Not a constant NaN, which tf.debugging.enable_check_numerics would report.
    return tf.sqrt(tf.where(condition, 1.0, -1.0))


def check_same_length(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Checks that labels and features or logits have the same N; see `require`.

    Raises:
      UserError: another number of labels.
    """
    if not labels.shape[:1].is_compatible_with(outputs.shape[:1]):
        raise UserError(
            f"labels and features must agree in N, got {labels.shape[0]} labels "
            f"and {outputs.shape[0]} samples"
        )
    if None not in (labels.shape[0], outputs.shape[0]):
        return tf.ones([])
    lengths = tf.stack([tf.shape(labels)[0], tf.shape(outputs)[0]])
    return require(lengths[0] == lengths[1], "labels and features must agree in N", lengths)
