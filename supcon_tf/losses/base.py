"""A Keras loss that leaves its labels as they are."""

from typing import Any

import keras
import tensorflow as tf


class _Reduction(keras.losses.Loss):
    """Keras' reduction (weights, mean, division by the replicas) of values already computed."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        del y_true
        return y_pred


class PerSampleLoss(keras.losses.Loss):
    """Base of losses that return [N] values from labels of any kind.

    Keras casts labels to the loss's float dtype, which merges 2^24 and 2^24 + 1, and refuses
    None. Here the labels reach `call` untouched: integers stay integers, and None is allowed.
    """

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """Reduces `call(y_true, y_pred)`; `sample_weight` [N] weighs the anchors."""
        with tf.name_scope(self.name):
            values = self.call(y_true, y_pred)
            reduction = _Reduction(reduction=self.reduction)
            return reduction(values, values, sample_weight)
