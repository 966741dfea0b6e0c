"""The classifier of large-margin softmax, whose output tells the angles to the classes."""

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="supcon_tf")
class LargeMarginHead(layers.Layer):
    """Class scores without a bias, and the lengths that turn them into cosines.

    Outputs w_j . x and ||w_j|| ||x|| of each class, what `losses.LargeMarginSoftmaxLoss` takes
    (Liu et al. 2016, arXiv 1612.02295). Both are float32 under any global dtype policy, because
    the loss divides one by the other. The plain class scores are `[..., 0]`.

    Args:
      num_classes: C.

    Example:
      >>> import keras
      >>> from supcon_tf.models.large_margin_head import LargeMarginHead
      >>> embedding = keras.Input((512,))
      >>> scores_and_lengths = LargeMarginHead(10)(embedding)
      >>> scores_and_lengths.shape, scores_and_lengths[..., 0].shape
      ((None, 10, 2), (None, 10))
    """

    def __init__(self, num_classes: int, *, dtype: Any = "float32", **kwargs: Any):
        super().__init__(dtype=dtype, **kwargs)
        self.num_classes = num_classes

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], self.num_classes), initializer="glorot_uniform"
        )

    def call(self, embeddings):
        scores = ops.matmul(embeddings, self.kernel)
        # Outer product: [B, 1] * [1, C] -> [B, C]
        lengths = _length(embeddings, axis=1) * _length(self.kernel, axis=0)
        return ops.stack([scores, lengths], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_classes, 2)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


def class_scores(logits):
    """The class scores in a classifier's output, which a `LargeMarginHead` gives with lengths.

    Args:
      logits: [B, C], or [B, C, 2] as `LargeMarginHead` gives them.

    Returns:
      [B, C].

    Example:
      >>> import keras
      >>> from supcon_tf.models import class_scores
      >>> class_scores(keras.ops.array([[[2.0, 2.5], [0.0, 3.0]]])).numpy().tolist()
      [[2.0, 0.0]]
    """
    return logits[..., 0] if len(logits.shape) == 3 else logits


def _length(vectors, *, axis):
    # The smallest square keeps the gradient of the root finite at zero.
    square = ops.sum(ops.square(vectors), axis=axis, keepdims=True)
    return ops.sqrt(ops.maximum(square, 1e-37))
