"""Large-margin softmax: cross-entropy whose true class must win by an angle.

Equations: Liu et al. 2016, "Large-Margin Softmax Loss for Convolutional Neural Networks",
arXiv 1612.02295. A class's score is w_j . x = ||w_j|| ||x|| cos(theta_j), without a bias.
"""

import math
from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.losses.base import LossInput, LossLabels, PerSampleLoss

Margin = Literal[1, 2, 3, 4]

# Squared lengths below it count as this much: the square root keeps a finite gradient.
_SMALLEST_SQUARE = 1e-37


def large_margin_softmax_loss(
    labels: Any,
    embeddings: Any,
    kernel: Any,
    *,
    margin: Margin = 4,
    annealing: float | tf.Tensor = 0.0,
) -> tf.Tensor:
    """Large-margin softmax loss of each sample.

    Softmax cross-entropy of the scores ||w_j|| ||x|| cos(theta_j), where the true class has
    (lambda cos(theta) + psi(theta)) / (1 + lambda) in place of its cosine, and
    psi(theta) = (-1)^k cos(m theta) - 2k for theta in [k pi / m, (k + 1) pi / m].

    Args:
      labels: integers [N], or one-hot rows [N, C]. Integers [N, 1] are read as [N]. In a mixed
        row (MixUp), each class gets its share of the margin, which is our extension.
      embeddings: [N, D] of any float dtype. The computation is in float32.
      kernel: [D, C] of any float dtype, a class vector w_j per column.
      margin: m, the factor between the angles; 1 is plain softmax cross-entropy.
      annealing: lambda >= 0; 0 is the full margin, a large number nearly none.

    Returns:
      float32 [N].

    Raises:
      UserError: an option or a shape that is not as described.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import large_margin_softmax_loss
      >>> kernel = tf.constant([[1., 0.], [0., 1.]])
      >>> embeddings = tf.constant([[2., 0.], [2., 2.]])
      >>> for margin in (1, 2):
      ...     losses = large_margin_softmax_loss([0, 0], embeddings, kernel, margin=margin)
      ...     print(losses.numpy().round(4))
      [0.1269 0.6931]
      [0.1269 2.1269]
    """
    _check_options(margin=margin, annealing=annealing)
    embeddings = tf.cast(tf.convert_to_tensor(embeddings), tf.float32)
    kernel = tf.cast(tf.convert_to_tensor(kernel), tf.float32)
    if embeddings.shape.rank != 2 or kernel.shape.rank != 2:
        raise UserError(
            f"embeddings must be [N, D] and kernel [D, C], got shapes {embeddings.shape} "
            f"and {kernel.shape}"
        )
    # Outer product: [N, 1] * [1, C] -> [N, C]
    lengths = _length(embeddings, axis=1) * _length(kernel, axis=0)
    return _margin_cross_entropy(labels, tf.matmul(embeddings, kernel), lengths, margin, annealing)


def _check_options(*, margin: int, annealing: float | tf.Tensor) -> None:
    if margin not in get_args(Margin):
        raise UserError(f"margin must be one of {get_args(Margin)}, got {margin!r}")
    # It may also be a tensor or a variable, whose value is not known here.
    if isinstance(annealing, int | float) and not annealing >= 0:
        raise UserError(f"annealing must be >= 0, got {annealing}")


def _length(vectors: tf.Tensor, *, axis: int) -> tf.Tensor:
    square = tf.reduce_sum(tf.square(vectors), axis=axis, keepdims=True)
    return tf.sqrt(tf.maximum(square, _SMALLEST_SQUARE))


def _margin_cross_entropy(
    labels: Any,
    scores: tf.Tensor,
    lengths: tf.Tensor,
    margin: int,
    annealing: float | tf.Tensor,
) -> tf.Tensor:
    """Cross-entropy [N] of scores and ||w|| ||x||, both [N, C], with the true class's margin."""
    labels = tf.convert_to_tensor(labels)
    num_classes = scores.shape[1]
    if labels.shape.rank == 2 and labels.shape[1] == 1 and labels.dtype.is_integer:
        labels = labels[:, 0]
    are_numbers = labels.shape.rank == 1 and labels.dtype.is_integer
    if not are_numbers and (labels.shape.rank != 2 or labels.shape[1] != num_classes):
        raise UserError(
            f"labels must be integers [N] or rows [N, {num_classes}], got {labels.dtype.name} "
            f"of shape {labels.shape}"
        )
    labels = tf.cast(labels, tf.int64 if are_numbers else tf.float32)
    targets = tf.one_hot(labels, num_classes) if are_numbers else labels
    cosines = tf.math.divide_no_nan(scores, lengths)
    handicaps = lengths * (_psi(cosines, margin) - cosines) / (1.0 + annealing)
    logits = scores + targets * handicaps
    if are_numbers:
        # A number beyond the classes is an error here, where its row of zeros would cost nothing.
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def _psi(cosines: tf.Tensor, margin: int) -> tf.Tensor:
    """psi(theta) from cos(theta). Without the arc cosine, its slope is finite at 0 and pi too."""
    # Chebyshev polynomials: cos(n theta) = 2 cos(theta) cos((n-1) theta) - cos((n-2) theta).
    previous, cosines_of_multiple = tf.ones_like(cosines), cosines
    for _ in range(margin - 1):
        previous, cosines_of_multiple = (
            cosines_of_multiple,
            2.0 * cosines * cosines_of_multiple - previous,
        )
    sign, offset = tf.ones_like(cosines), tf.zeros_like(cosines)
    for piece in range(1, margin):
        is_beyond = cosines < math.cos(piece * math.pi / margin)
        sign = tf.where(is_beyond, -sign, sign)
        offset = tf.where(is_beyond, offset + 2.0, offset)
    return sign * cosines_of_multiple - offset


@keras.saving.register_keras_serializable(package="supcon_tf")
class LargeMarginSoftmaxLoss(PerSampleLoss):
    """Large-margin softmax for `compile` and `fit`: the mean of `large_margin_softmax_loss`.

    Scores alone do not tell the angles, so `y_pred` is [N, C, 2]: the scores w_j . x, and the
    products ||w_j|| ||x|| that they would be at angle zero. `models.LargeMarginHead` outputs it;
    class predictions, metrics and probabilities take its scores `[..., 0]`. `y_true` are labels
    as in `large_margin_softmax_loss`.

    Args:
      margin: as in `large_margin_softmax_loss`.
      annealing: lambda, held in the variable `annealing`, which `MarginAnnealing` lowers.
      reduction: a Keras reduction; with None, `[N]` values.
      name: of the loss.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import LargeMarginSoftmaxLoss
      >>> scores_and_lengths = tf.constant([[[2., 2.], [0., 2.]], [[2., 8**.5], [2., 8**.5]]])
      >>> loss = LargeMarginSoftmaxLoss(margin=2, reduction=None)
      >>> print(loss(tf.constant([0, 0]), scores_and_lengths).numpy().round(4))
      [0.1269 2.1269]
    """

    input: LossInput = "logits"
    labels: LossLabels = "single"

    def __init__(
        self,
        *,
        margin: Margin = 4,
        annealing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "large_margin_softmax_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        _check_options(margin=margin, annealing=annealing)
        self.options: dict[str, Any] = {"margin": margin, "annealing": annealing}
        self.annealing = tf.Variable(annealing, trainable=False, dtype=tf.float32)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values."""
        y_pred = tf.cast(tf.convert_to_tensor(y_pred), tf.float32)
        if y_pred.shape.rank != 3 or y_pred.shape[2] != 2:
            raise UserError(
                f"y_pred must be [N, C, 2] of scores and lengths, got shape {y_pred.shape}; "
                "models.LargeMarginHead outputs it"
            )
        scores, lengths = tf.unstack(y_pred, axis=2)
        return _margin_cross_entropy(
            y_true, scores, lengths, self.options["margin"], self.annealing
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}


class MarginAnnealing(keras.callbacks.Callback):
    """Lowers lambda of the model's `LargeMarginSoftmaxLoss` at every step of `fit`.

    At the optimizer's step t, lambda = start (end / start)^min(t / steps, 1): every step divides
    it by the same factor. The paper lets lambda fall without saying how; this schedule and its
    numbers are our own choice. It depends on t alone, so a resumed run continues it.

    Far below the default `end`, short trainings lose whole classes: a margin of 4 on scikit-learn's
    digits, 15 epochs, got 96 % at `end` 5, 92-95 % at 1 and 84-94 % at 0.1 (softmax: 97 %).

    Args:
      steps: of the optimizer, until lambda is `end`; >= 1.
      start: lambda at step 0, > 0.
      end: lambda from then on, > 0; 5 gives psi a sixth of the weight.

    Raises:
      UserError: a number that is not as described, or a model compiled without the loss.

    Example:
      >>> from supcon_tf.losses import MarginAnnealing
      >>> round(MarginAnnealing(steps=100, start=1000.0, end=0.1).annealing(50), 4)
      10.0
    """

    def __init__(self, *, steps: int, start: float = 1000.0, end: float = 5.0):
        super().__init__()
        for name, value in (("steps", steps), ("start", start), ("end", end)):
            if not value > 0:
                raise UserError(f"{name} must be > 0, got {value}")
        self.steps, self.start, self.end = steps, start, end

    def annealing(self, step: int) -> float:
        """Lambda at a step of the optimizer."""
        return self.start * (self.end / self.start) ** min(step / self.steps, 1.0)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        losses = keras.tree.flatten(self.model.loss)
        self.losses = [loss for loss in losses if isinstance(loss, LargeMarginSoftmaxLoss)]
        if not self.losses:
            raise UserError(f"no LargeMarginSoftmaxLoss to anneal, the model has {losses}")

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = int(self.model.optimizer.iterations.value.numpy())
        for loss in self.losses:
            loss.annealing.assign(self.annealing(step))
