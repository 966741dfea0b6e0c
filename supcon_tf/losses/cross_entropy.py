"""Cross-entropy of class scores, for class numbers and for mixed labels alike."""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.losses.base import LossInput, LossLabels, PerSampleLoss
from supcon_tf.losses.multiview import rescale_to_masked_mean


@keras.saving.register_keras_serializable(package="supcon_tf")
class CrossEntropyLoss(PerSampleLoss):
    """Softmax cross-entropy of class scores: - sum_c t_c log softmax(scores)_c.

    With label smoothing e, t is (1 - e) t + e / C. Keras has a class for class numbers, without
    smoothing, and another one for rows; a stage whose labels may be mixed needs both in one.

    Args:
      label_smoothing: e, in [0, 1).
      ignore_class: an integer label that means none; the mean leaves these samples out, also over
        replicas. None for labels that are all meant.
      reduction: a Keras reduction; with None, `[N]` values.
      name: of the loss.

    `y_true` are integers [N] or [N, 1], or rows [N, C] that add up to one, as MixUp and CutMix
    give them. `y_pred` are scores (logits) [N, C] of any float dtype; the computation is in
    float32.

    Raises:
      UserError: a label_smoothing outside of [0, 1), or labels of another shape.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import CrossEntropyLoss
      >>> scores = tf.constant([[2., 0.], [0., 0.]])
      >>> loss = CrossEntropyLoss(reduction=None)
      >>> print(loss(tf.constant([0, 1]), scores).numpy().round(4))
      [0.1269 0.6931]
      >>> print(loss(tf.constant([[0.5, 0.5], [0., 1.]]), scores).numpy().round(4))
      [1.1269 0.6931]
    """

    input: LossInput = "logits"
    labels: LossLabels = "single"

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cross_entropy_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.ignore_class = ignore_class

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values."""
        scores = tf.cast(tf.convert_to_tensor(y_pred), tf.float32)
        labels = tf.convert_to_tensor(y_true)
        num_classes = scores.shape[1]
        if labels.shape.rank == 2 and labels.shape[1] == 1 and labels.dtype.is_integer:
            labels = labels[:, 0]
        smoothing, counted = self.label_smoothing, None
        if labels.shape.rank == 1 and labels.dtype.is_integer:
            # A number beyond the classes is an error here, where its row of zeros would be none.
            labels = tf.cast(labels, tf.int64)
            if self.ignore_class is not None:
                counted = labels != self.ignore_class
                labels = tf.where(counted, labels, 0)
            own = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)
        elif labels.shape.rank == 2 and labels.shape[1] == num_classes:
            own = tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, tf.float32), scores)
        else:
            raise UserError(
                f"labels must be integers [N] or rows [N, {num_classes}], got "
                f"{labels.dtype.name} of shape {labels.shape}"
            )
        if smoothing:
            every = -tf.reduce_mean(tf.nn.log_softmax(scores), axis=1)
            own = (1.0 - smoothing) * own + smoothing * every
        return (
            own if counted is None else rescale_to_masked_mean(tf.where(counted, own, 0.0), counted)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "ignore_class": self.ignore_class,
        }


@keras.saving.register_keras_serializable(package="supcon_tf")
class BinaryCrossEntropyLoss(PerSampleLoss):
    """Mean over the classes of - t_c log sigmoid(s_c) - (1 - t_c) log sigmoid(-s_c).

    Every class is a question of its own, so that an image may have several or none. Keras'
    BinaryCrossentropy takes probabilities unless told otherwise, and class numbers too where their
    shape happens to fit; this one takes scores and rows, as every stage gives them.

    Args:
      reduction: a Keras reduction; with None, `[N]` values.
      name: of the loss.

    `y_true` are rows [N, C] within [0, 1], of any dtype. `y_pred` are scores (logits) [N, C] of any
    float dtype; the computation is in float32.

    Raises:
      UserError: labels of another shape.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import BinaryCrossEntropyLoss
      >>> scores = tf.constant([[0., 0.], [2., 0.]])
      >>> loss = BinaryCrossEntropyLoss(reduction=None)
      >>> print(loss(tf.constant([[1, 1], [1, 0]]), scores).numpy().round(4))
      [0.6931 0.41  ]
    """

    input: LossInput = "logits"
    labels: LossLabels = "multi"

    def __init__(
        self,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_cross_entropy_loss",
    ):
        super().__init__(name=name, reduction=reduction)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values."""
        scores = tf.cast(tf.convert_to_tensor(y_pred), tf.float32)
        labels = tf.convert_to_tensor(y_true)
        if labels.shape.rank != 2 or labels.shape[1] != scores.shape[1]:
            raise UserError(
                f"labels must be rows [N, {scores.shape[1]}], got {labels.dtype.name} of shape "
                f"{labels.shape}"
            )
        own = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, tf.float32), scores)
        return tf.reduce_mean(own, axis=1)
