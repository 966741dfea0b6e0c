"""Metrics of the class logits during training."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from supcon_tf.models import class_scores


def training_metrics(
    losses: Mapping[str, keras.losses.Loss], *, multi_label: bool
) -> list[keras.metrics.Metric]:
    """Accuracy of the classifier, and its loss without weight decay where it is the only loss.

    Args:
      losses: one per output of the model.
      multi_label: whether an image may have several labels.
    """
    # Mean average precision is not a mean over batches: it is measured on whole splits only.
    accuracy = [] if multi_label else [_Accuracy(name="accuracy")]
    if set(losses) != {"logits"}:
        return accuracy
    # Keras' own "loss" of a model with one output includes weight decay. `call` gives values per
    # sample; the loss object would divide them by the number of replicas.
    return [
        *accuracy,
        keras.metrics.MeanMetricWrapper(losses["logits"].call, name="loss_without_decay"),
    ]


def _is_right(labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """1 where the highest score belongs to the label, or to a mixed label's largest weight."""
    if labels.shape.rank == 2 and labels.shape[1] != 1:
        labels = tf.argmax(labels, axis=1)
    wanted = tf.cast(tf.reshape(labels, [-1]), tf.int64)
    return tf.cast(tf.argmax(class_scores(scores), axis=1) == wanted, tf.float32)


class _Accuracy(keras.metrics.Mean):
    """Accuracy of the samples with a label; NaN if there are none."""

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: None = None) -> Any:
        has_label = tf.ones(tf.shape(y_true)[:1])
        if y_true.dtype.is_integer and y_true.shape[1:].num_elements() == 1:
            has_label = tf.cast(tf.reshape(y_true, [-1]) >= 0, tf.float32)
        return super().update_state(_is_right(y_true, y_pred), has_label)

    def result(self) -> tf.Tensor:
        return self.total / self.count
