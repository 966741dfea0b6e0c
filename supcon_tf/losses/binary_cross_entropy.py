"""Binary cross-entropy of class scores, for images that have several labels."""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf.losses.per_sample import PerSampleLoss


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
      ValueError: labels of another shape.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import BinaryCrossEntropyLoss
      >>> scores = tf.constant([[0., 0.], [2., 0.]])
      >>> loss = BinaryCrossEntropyLoss(reduction=None)
      >>> print(loss(tf.constant([[1, 1], [1, 0]]), scores).numpy().round(4))
      [0.6931 0.41  ]
    """

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
            raise ValueError(
                f"labels must be rows [N, {scores.shape[1]}], got {labels.dtype.name} of shape "
                f"{labels.shape}"
            )
        own = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, tf.float32), scores)
        return tf.reduce_mean(own, axis=1)
