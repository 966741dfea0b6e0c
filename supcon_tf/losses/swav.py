"""SwAV: swapped prediction of cluster assignments between the crops of an image.

Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
arXiv 2006.09882. A crop's score for a prototype is the inner product of their unit vectors. The
codes of the large crops are soft assignments that distribute the batch evenly over the prototypes;
the other crops of the image predict them.
"""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError, check_integer, check_number
from supcon_tf.losses.base import LossInput, LossLabels, PerSampleLoss
from supcon_tf.losses.labels import require, to_tensor
from supcon_tf.losses.multiview import check_temperature, reject_variable


def sinkhorn_knopp(
    scores: Any,
    *,
    epsilon: float = 0.05,
    rounds: int = 3,
    queue_scores: Any = None,
    use_queue: Any = True,
) -> tf.Tensor:
    """Codes: exp(scores / epsilon), scaled so that all prototypes get the same share of the batch.

    Each round divides every column by its sum over the samples, then every row by its sum over
    the prototypes, so that the rows sum to one (section 3.1; Cuturi 2013, arXiv 1306.0895). The
    computation uses logarithms and does not overflow for any epsilon > 0. In a `tf.distribute`
    replica the sums over samples are over the global batch.

    Args:
      scores: float [B, K] of B samples and K prototypes.
      epsilon: > 0; a smaller value concentrates a row on fewer prototypes.
      rounds: >= 1.
      queue_scores: float [M, K], scores of additional samples, the same on all replicas. They enter
        the sums over samples but get no codes. Defaults to None.
      use_queue: whether to use queue_scores, a bool or a bool tensor [].

    Returns:
      float32 [B, K], rows that sum to one, without gradient.

    Raises:
      UserError: epsilon or rounds out of range.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import sinkhorn_knopp
      >>> codes = sinkhorn_knopp(tf.constant([[0.9, 0.8], [0.9, 0.1]]))
      >>> print(codes.numpy().round(4))
      [[0.1429 0.8571]
       [1.     0.    ]]
    """
    _check_codes(epsilon=epsilon, rounds=rounds)
    log_codes = tf.stop_gradient(tf.cast(to_tensor("scores", scores), tf.float32)) / epsilon
    if queue_scores is not None:
        queue_scores = tf.cast(to_tensor("queue_scores", queue_scores), tf.float32)
        log_queue = tf.stop_gradient(queue_scores) / epsilon
    for _ in range(rounds):
        # [B, K] -> [1, K] per replica, then [K] over all replicas.
        log_sums = tf.reduce_logsumexp(log_codes, axis=0, keepdims=True)
        log_sums = tf.reduce_logsumexp(distribution.gather(log_sums), axis=0)
        if queue_scores is not None:
            queue_sums = tf.reduce_logsumexp(log_queue, axis=0)
            queue_sums = tf.where(use_queue, queue_sums, queue_sums.dtype.min)
            log_sums = tf.reduce_logsumexp(tf.stack([log_sums, queue_sums]), axis=0)
            log_queue = tf.nn.log_softmax(log_queue - log_sums, axis=1)
        log_codes = tf.nn.log_softmax(log_codes - log_sums, axis=1)
    return tf.exp(log_codes)


def swav_loss(
    scores: Any,
    codes: Any = None,
    *,
    temperature: float = 0.1,
    num_assigned: int = 2,
    epsilon: float = 0.05,
    rounds: int = 3,
) -> tf.Tensor:
    """Swapped prediction loss of each sample.

    For each crop a with codes q, the mean over the other crops v != a of
    -sum_k q_ak log softmax(scores_v / temperature)_k; the loss is the mean over a.

    Args:
      scores: float [B, V, K] of V crops per sample and K prototypes; the crops with codes first.
      codes: float [B, A, K], rows that sum to one, for the first A crops; they get no gradient.
        None computes them by `sinkhorn_knopp`, for each crop separately.
      temperature: > 0.
      num_assigned: A if `codes` is None.
      epsilon, rounds: as in `sinkhorn_knopp`, if `codes` is None.

    Returns:
      float32 [B].

    Raises:
      UserError: an invalid option or shape.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import swav_loss
      >>> one, other = [0.9, 0.1], [0.1, 0.9]
      >>> agreeing, swapped = [[one, one], [other, other]], [[one, other], [other, one]]
      >>> print(swav_loss(tf.constant(agreeing)).numpy().round(3))
      [0. 0.]
      >>> print(swav_loss(tf.constant(swapped)).numpy().round(3))
      [8. 8.]
    """
    temperature = check_temperature(temperature)
    check_integer("num_assigned", num_assigned, at_least=1)
    scores = tf.cast(to_tensor("scores", scores), tf.float32)
    if scores.shape.rank != 3:
        raise UserError(f"scores must be [B, V, K], got shape {scores.shape}")
    num_crops = scores.shape[1]
    if codes is not None:
        codes = tf.cast(to_tensor("codes", codes), tf.float32)
        if codes.shape.rank != 3 or scores.shape[2] != codes.shape[2]:
            raise UserError(
                "scores must be [B, V, K] and codes [B, A, K], got shapes "
                f"{scores.shape} and {codes.shape}"
            )
        num_assigned = codes.shape[1]
    if not 1 <= num_assigned <= num_crops or num_crops < 2:
        raise UserError(
            "num_assigned must be between 1 and the number of crops, which must be >= 2, got "
            f"{num_assigned} of {num_crops}"
        )
    if codes is None:
        assigned = tf.unstack(scores[:, :num_assigned], axis=1)
        codes = [sinkhorn_knopp(crop, epsilon=epsilon, rounds=rounds) for crop in assigned]
        codes = tf.stack(codes, axis=1)
    codes = tf.stop_gradient(codes)
    # [B, A, K] and [B, V, K] -> [B, A, V]
    cross_entropy = -tf.matmul(codes, tf.nn.log_softmax(scores / temperature), transpose_b=True)
    is_other = 1.0 - tf.eye(num_assigned, num_crops)
    return tf.reduce_sum(cross_entropy * is_other, axis=[1, 2]) / (num_assigned * (num_crops - 1))


def _check_codes(*, epsilon: float, rounds: int) -> None:
    check_number("epsilon", epsilon, above=0)
    check_integer("rounds", rounds, at_least=1)


@keras.saving.register_keras_serializable(package="supcon_tf")
class SwAVLoss(PerSampleLoss):
    """SwAV for `compile` and `fit`: the mean of `swav_loss`. Ignores labels.

    The model computes the codes, because it owns the queue: `y_pred` is [B, A + V, K], the codes
    of A crops followed by the scores of all V crops, as `models.Prototypes` outputs them.

    Args:
      temperature: as in `swav_loss`.
      num_assigned: A.
      reduction: a Keras reduction; None returns [B] values.
      name: name of the loss.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import SwAVLoss
      >>> codes, scores = [[1., 0.], [1., 0.]], [[0., 0.], [0.1, 0.]]
      >>> round(float(SwAVLoss()(None, tf.constant([codes + scores]))), 4)  # log 2, log(1 + 1/e)
      0.5032
    """

    input: LossInput = "prototypes"
    labels: LossLabels = "none"

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        num_assigned: int = 2,
        reduction: str | None = "sum_over_batch_size",
        name: str = "swav_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        reject_variable(temperature)
        check_temperature(temperature)
        check_integer("num_assigned", num_assigned, at_least=1)
        self.temperature, self.num_assigned = temperature, num_assigned

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[B] values."""
        del y_true
        y_pred = tf.cast(to_tensor("y_pred", y_pred), tf.float32)
        if y_pred.shape.rank != 3 or (y_pred.shape[1] or 0) < 2 * self.num_assigned:
            raise UserError(
                f"y_pred must be [B, A + V, K] with A = {self.num_assigned} and V >= A, got shape "
                f"{y_pred.shape}"
            )
        codes, scores = y_pred[:, : self.num_assigned], y_pred[:, self.num_assigned :]
        sums = tf.reduce_sum(codes, axis=2)
        validity = require(
            tf.reduce_all(tf.abs(sums - 1) < 0.02),
            f"the first {self.num_assigned} rows of y_pred must be codes that sum to 1: give "
            "num_assigned of the model, and its outputs as models.Prototypes gives them",
            sums,
        )
        return swav_loss(scores, codes, temperature=self.temperature) * validity

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "num_assigned": self.num_assigned,
        }
