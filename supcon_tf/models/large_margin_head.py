"""The classifier of large-margin softmax: class scores and products of norms."""

from typing import Any

import keras
from keras import layers, ops

from supcon_tf.errors import check_integer


@keras.saving.register_keras_serializable(package="supcon_tf")
class LargeMarginHead(layers.Layer):
    """A linear classifier without bias that also returns the norms behind each score.

    For an embedding x and class weights w_j it returns w_j . x and ||w_j|| ||x||; their quotient is
    the cosine that `losses.LargeMarginSoftmaxLoss` needs (Liu et al. 2016, arXiv 1612.02295). Both
    are float32 under any global dtype policy.

    Maps float [B, D] to float32 [B, C, 2]; the class scores are `[..., 0]`.

    Args:
      num_classes: C, at least 2.

    Raises:
      UserError: if `num_classes` is below 2.

    Example:
      >>> import keras
      >>> from supcon_tf.models.large_margin_head import LargeMarginHead
      >>> embedding = keras.Input((512,))
      >>> logits = LargeMarginHead(10)(embedding)
      >>> logits.shape, logits[..., 0].shape
      ((None, 10, 2), (None, 10))
    """

    def __init__(self, num_classes: int, *, dtype: Any = "float32", **kwargs: Any):
        super().__init__(dtype=dtype, **kwargs)
        self.num_classes = check_integer("num_classes", num_classes, at_least=2)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], self.num_classes), initializer="glorot_uniform"
        )

    def call(self, embeddings):
        scores = ops.matmul(embeddings, self.kernel)
        # Outer product: [B, 1] * [1, C] -> [B, C]
        norms = _norm(embeddings, axis=1) * _norm(self.kernel, axis=0)
        return ops.stack([scores, norms], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_classes, 2)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


def class_scores(logits):
    """The class scores of a plain classifier or of a `LargeMarginHead`.

    Args:
      logits: float [B, C], or [B, C, 2] from a `LargeMarginHead`.

    Returns:
      float [B, C].

    Example:
      >>> import keras
      >>> from supcon_tf.models import class_scores
      >>> class_scores(keras.ops.array([[[2.0, 2.5], [0.0, 3.0]]])).numpy().tolist()
      [[2.0, 0.0]]
    """
    return logits[..., 0] if len(logits.shape) == 3 else logits


def _norm(vectors, *, axis):
    # A lower bound above zero keeps the gradient of the root finite at zero.
    square = ops.sum(ops.square(vectors), axis=axis, keepdims=True)
    return ops.sqrt(ops.maximum(square, 1e-37))
