"""Cross-entropy of logits: softmax for one class per image, sigmoid for several."""

from numbers import Integral
from typing import Any

import keras
import tensorflow as tf

from supcon_tf.errors import UserError, check_number
from supcon_tf.losses.base import LossInput, LossLabels, PerSampleLoss
from supcon_tf.losses.labels import check_same_length, class_targets, require, to_tensor
from supcon_tf.losses.log_prior import LogPrior, add_log_prior, check_log_prior
from supcon_tf.losses.multiview import rescale_to_masked_mean


@keras.saving.register_keras_serializable(package="supcon_tf")
class CrossEntropyLoss(PerSampleLoss):
    """Softmax cross-entropy of logits: - sum_c t_c log softmax(logits)_c.

    Label smoothing e replaces t by (1 - e) t + (e / C) sum_c t_c. Keras has two classes; this one
    takes both class numbers and rows, with smoothing. With `log_prior` it is logit-adjusted
    cross-entropy for long-tailed classes (Menon et al. 2021, arXiv 2007.07314, tau 1).

    `y_true` are class numbers in [0, C), integers [N] or [N, 1] or whole floats [N, 1], or rows
    [N, C] that sum to one, such as MixUp's and CutMix's; a row of zeros has loss 0. `y_pred` are
    logits [N, C] of any float dtype; the computation is in float32.

    Args:
      label_smoothing: e, in [0, 1).
      ignore_class: integer label of samples to exclude from the mean. Defaults to None.
      log_prior: [C], log of each class's share of the training images, added to the logits; or
        "source" in a stage, for the shares in its training images. Defaults to None.
      reduction: a Keras reduction; None returns [N] values.
      name: name of the loss.

    Raises:
      UserError: a label_smoothing outside [0, 1), a single logit per sample, or invalid labels.
        In a graph, invalid label values raise InvalidArgumentError; with XLA the loss is NaN.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import CrossEntropyLoss
      >>> logits = tf.constant([[2., 0.], [0., 0.]])
      >>> loss = CrossEntropyLoss(reduction=None)
      >>> print(loss(tf.constant([0, 1]), logits).numpy().round(4))
      [0.1269 0.6931]
      >>> print(loss(tf.constant([[0.5, 0.5], [0., 1.]]), logits).numpy().round(4))
      [1.1269 0.6931]
    """

    input: LossInput = "logits"
    labels: LossLabels = "single"

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        log_prior: LogPrior = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cross_entropy_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        check_number("label_smoothing", label_smoothing, at_least=0, below=1)
        is_integer = isinstance(ignore_class, Integral) and not isinstance(ignore_class, bool)
        if ignore_class is not None and not is_integer:
            raise UserError(f"ignore_class must be an integer or None, got {ignore_class!r}")
        self.label_smoothing = label_smoothing
        self.ignore_class = ignore_class
        self.log_prior = check_log_prior(log_prior)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values."""
        logits = tf.cast(to_tensor("logits", y_pred), tf.float32)
        labels, are_numbers, validity = class_targets(
            y_true, logits, ignore_class=self.ignore_class
        )
        logits, prior_validity = add_log_prior(logits, self.log_prior)
        smoothing, mask = self.label_smoothing, None
        if are_numbers:
            if self.ignore_class is not None:
                mask = labels != self.ignore_class
                labels = tf.where(mask, labels, 0)
            values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        else:
            values = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
        if smoothing:
            uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=1)
            if not are_numbers:
                uniform *= tf.reduce_sum(labels, axis=1)  # 0 for a row of zeros.
            values = (1.0 - smoothing) * values + smoothing * uniform
        if mask is not None:
            values = rescale_to_masked_mean(tf.where(mask, values, 0.0), mask)
        return values * validity * prior_validity

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "ignore_class": self.ignore_class,
            "log_prior": self.log_prior,
        }


@keras.saving.register_keras_serializable(package="supcon_tf")
class BinaryCrossEntropyLoss(PerSampleLoss):
    """Mean over the classes of - t_c log sigmoid(s_c) - (1 - t_c) log sigmoid(-s_c).

    The classes are independent: an image may have several or none. Keras' BinaryCrossentropy
    takes probabilities by default, and accepts class numbers whose shape happens to fit.

    `y_true` are rows [N, C] within [0, 1], of any dtype, or [N] for one class. `y_pred` are
    logits [N, C] of any float dtype; the computation is in float32.

    Args:
      reduction: a Keras reduction; None returns [N] values.
      name: name of the loss.

    Raises:
      UserError: labels of another shape or outside [0, 1].

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import BinaryCrossEntropyLoss
      >>> logits = tf.constant([[0., 0.], [2., 0.]])
      >>> loss = BinaryCrossEntropyLoss(reduction=None)
      >>> print(loss(tf.constant([[1, 1], [1, 0]]), logits).numpy().round(4))
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
        logits = tf.cast(to_tensor("logits", y_pred), tf.float32)
        if logits.shape.rank != 2:
            raise UserError(f"logits must be [N, C], got shape {logits.shape}")
        labels = to_tensor("labels", y_true)
        if labels.shape.rank == 1 and logits.shape[1] == 1:
            labels = labels[:, None]
        if labels.shape.rank != 2 or labels.shape[1] != logits.shape[1]:
            raise UserError(
                f"labels must be rows [N, {logits.shape[1]}], got {labels.dtype.name} of shape "
                f"{labels.shape}"
            )
        validity = check_same_length(labels, logits)
        labels = tf.cast(labels, tf.float32)
        validity *= require(
            tf.reduce_all((labels >= 0) & (labels <= 1)), "label rows must be in [0, 1]", labels
        )
        values = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        return tf.reduce_mean(values, axis=1) * validity
