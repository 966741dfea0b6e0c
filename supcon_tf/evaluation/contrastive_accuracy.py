"""Contrastive accuracy as a Keras metric: is the nearest other view one of the same class?"""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.losses.base import check_weights, in_symbolic_scope
from supcon_tf.losses.dense import LOG_ZERO
from supcon_tf.losses.labels import as_labels
from supcon_tf.losses.multiview import as_views
from supcon_tf.losses.pairs import make_pairs, multiview_batch


@keras.saving.register_keras_serializable(package="supcon_tf")
class ContrastiveAccuracy(keras.metrics.Metric):
    """Share of the anchors with a positive whose nearest other row of the batch is a positive.

    Nearest is by cosine similarity; a negative that is as near as the nearest positive counts as
    nearer. Large batches are compared in linear memory. In a `tf.distribute` replica the anchors
    are the local samples and the other rows those of the global batch.

    `y_true` are labels as in `losses.supcon_loss`, `y_pred` projections [N, V, D] of any float
    dtype.

    Args:
      name: name of the metric.
      dtype: of the result. Defaults to float32.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.evaluation import ContrastiveAccuracy
      >>> features = tf.constant([[[1., 0.]], [[0.9, 0.1]], [[0., 1.]], [[0.8, 0.2]]])
      >>> metric = ContrastiveAccuracy()
      >>> metric.update_state(tf.constant([0, 0, 1, 1]), features)
      >>> float(metric.result())
      0.75
    """

    def __init__(self, name: str = "contrastive_accuracy", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self._hits = self.add_weight(name="hits", initializer="zeros")
        self._anchors = self.add_weight(name="anchors", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch; `sample_weight`, [N], [N, 1] or a number, weights anchors."""
        if in_symbolic_scope():
            # On several replicas, Keras 3.15 builds a model from the mean of their batches: class
            # numbers are floats in this call, but not in the training step.
            return
        features = as_views(y_pred)
        first_row = distribution.first_row(tf.shape(features)[0])
        labels, validity = as_labels(y_true, features, first_row)
        batch = multiview_batch(labels, features, temperature=1.0)
        to_positive, to_negative = make_pairs(batch).nearest()
        has_positive = tf.cast(to_positive > LOG_ZERO / 2, tf.float32)
        hits = has_positive * tf.cast(to_positive > to_negative, tf.float32)
        if sample_weight is not None:
            samples = features[:, 0, 0]
            weights = tf.cast(check_weights(sample_weight, samples), tf.float32)
            weights = batch.repeat_for_rows(tf.broadcast_to(weights, tf.shape(samples)))
            hits, has_positive = hits * weights, has_positive * weights
        self._hits.assign_add(tf.reduce_sum(hits) * validity)
        self._anchors.assign_add(tf.reduce_sum(has_positive))

    def result(self) -> Any:
        """The share, 0 before the first anchor with a positive."""
        return tf.math.divide_no_nan(self._hits.value, self._anchors.value)
