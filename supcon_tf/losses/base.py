"""Base class of the losses, and the model output and labels that each loss takes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.losses.labels import to_tensor

LossInput = Literal["projection", "logits", "prototypes", "logits_and_projection"]
LossLabels = Literal["single", "multi", "any", "soft", "none"]

_REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none")
_KERAS_SINGLE_LABEL = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.CategoricalHinge,
    keras.losses.SparseCategoricalCrossentropy,
)
_KERAS_MULTI_LABEL = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)


def loss_input(loss: keras.losses.Loss) -> LossInput:
    """The model output that a loss takes as `y_pred`.

    Args:
      loss: a loss of this package, a Keras loss of class scores, or a loss with an attribute
        `input`.

    Returns:
      "projection" [N, V, D], "logits" [N, C], "prototypes" [N, A + V, K] or
      "logits_and_projection" [N, V, C + D].

    Raises:
      UserError: an unknown loss.

    Example:
      >>> from supcon_tf.losses import SupConLoss, loss_input
      >>> loss_input(SupConLoss())
      'projection'
    """
    if hasattr(loss, "input"):
        return loss.input
    if isinstance(loss, _KERAS_SINGLE_LABEL + _KERAS_MULTI_LABEL):
        return "logits"
    raise UserError(
        f"unknown loss {getattr(loss, 'name', loss)!r} of type {type(loss).__name__}: take a loss "
        'of supcon_tf.losses, or give the class an attribute input = "logits" or "projection"'
    )


def loss_labels(loss: keras.losses.Loss) -> LossLabels:
    """The labels that a loss takes: "single" or "multi" per image, "any", "soft", or "none".

    Args and Raises: as in `loss_input`; the attribute of a custom loss is `labels`.

    Example:
      >>> from supcon_tf.losses import BinaryCrossEntropyLoss, loss_labels
      >>> loss_labels(BinaryCrossEntropyLoss())
      'multi'
    """
    loss_input(loss)
    if isinstance(loss, _KERAS_SINGLE_LABEL):
        return "single"
    if isinstance(loss, _KERAS_MULTI_LABEL):
        return "multi"
    return getattr(loss, "labels", "any")


class _Reduction(keras.losses.Loss):
    """Reduces given values as Keras does, with sample weights, in float32."""

    def __init__(self, reduction: str | None):
        super().__init__(reduction=reduction, dtype="float32")

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        del y_true
        return y_pred


class PerSampleLoss(keras.losses.Loss):
    """Base class of losses that compute [N] values in `call`, from labels of any dtype or None.

    Keras casts labels to the loss's float dtype, which merges 2^24 and 2^24 + 1, and rejects
    None. Here `call` receives the labels unchanged.

    On several replicas the gradient is the gradient of the mean over the global batch, even if the
    replicas hold different numbers of rows. Keras averages the replicas' means instead.

    Attributes:
      options: further arguments of the constructor, which `get_config` returns.
      input: the model output that the loss takes as `y_pred`.
      labels: "single" (one class per image), "multi" (several or none), "any", "soft" (rows of
        weights, such as MixUp's), or "none" (labels are not used).
    """

    input: LossInput = "projection"
    labels: LossLabels = "any"
    options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, *, name: str | None = None, reduction: str | None = "sum_over_batch_size"):
        if reduction not in (*_REDUCTIONS, None):
            raise UserError(f"reduction must be one of {_REDUCTIONS} or None, got {reduction!r}")
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """Reduces `call(y_true, y_pred)`; `sample_weight` [N] weights the anchors."""
        with tf.name_scope(self.name):
            if in_symbolic_scope():
                # On several replicas, Keras 3.15 builds a model from the mean of their batches:
                # class numbers are floats in this call, but not in the training step.
                shape = tf.shape(y_pred)[:1] if self.reduction in (None, "none") else []
                return tf.zeros(shape)
            values = self.call(y_true, y_pred)
            if sample_weight is not None:
                sample_weight = check_weights(sample_weight, values)
            context = tf.distribute.get_replica_context()
            if (
                context is None
                or context.num_replicas_in_sync == 1
                or self.reduction in (None, "none", "sum")
            ):
                return _Reduction(self.reduction)(values, values, sample_weight)
            weighted = _Reduction(None)(values, values, sample_weight)
            divisors = None
            if self.reduction == "mean_with_sample_weight" and sample_weight is not None:
                divisors = tf.cast(sample_weight, tf.float32)
            return _global_mean(weighted, divisors, context)


def check_weights(sample_weight: Any, values: tf.Tensor) -> tf.Tensor:
    """Sample weights as a tensor [N] or [], for values [N]."""
    weights = to_tensor("sample_weight", sample_weight)
    if weights.shape.rank == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if weights.shape.rank and not weights.shape.is_compatible_with(values.shape):
        raise UserError(
            f"sample_weight must be one number per sample [{values.shape[0]}], got shape "
            f"{weights.shape}"
        )
    return weights


def in_symbolic_scope() -> bool:
    """Whether Keras only computes shapes."""
    with keras.SymbolicScope() as scope:
        return scope.original_scope is not None


def _global_mean(
    values: tf.Tensor, divisors: tf.Tensor | None, context: tf.distribute.ReplicaContext
) -> tf.Tensor:
    """This replica's part of the mean over all replicas' values.

    The gradients of the parts add up to the gradient of the mean. The value is scaled so that the
    log of `fit`, a mean over replicas weighted by their rows, is the mean too.

    Args:
      values: [N]; N differs between replicas and may be 0.
      divisors: [N], whose sum replaces the number of rows; None for all ones.
      context: the replica.
    """
    values = tf.cast(values, tf.float32)
    num_rows = tf.cast(tf.shape(values)[0], tf.float32)
    divisor = num_rows if divisors is None else tf.reduce_sum(divisors)
    total_rows, total_divisor = tf.unstack(context.all_reduce("SUM", tf.stack([num_rows, divisor])))
    part = tf.math.divide_no_nan(tf.reduce_sum(values), total_divisor)
    average_rows = total_rows / context.num_replicas_in_sync
    logged = part * tf.math.divide_no_nan(average_rows, num_rows)
    return part + tf.stop_gradient(logged - part)
