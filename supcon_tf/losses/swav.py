"""SwAV: swapped prediction of cluster assignments between the crops of an image.

Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
arXiv 2006.09882. A crop's score for a prototype is the product of their unit vectors. The codes
of the large crops are soft assignments that spread the batch evenly over the prototypes; every
other crop of the image has to predict them.
"""

from typing import Any

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError
from supcon_tf.losses.base import LossInput, PerSampleLoss
from supcon_tf.losses.multiview import check_temperature


def sinkhorn_knopp(
    scores: Any,
    *,
    epsilon: float = 0.05,
    rounds: int = 3,
    others: Any = None,
    with_others: Any = True,
) -> tf.Tensor:
    """Codes: exp(scores / epsilon) scaled so that prototypes share the batch evenly.

    Each round divides every prototype's column by its sum over the samples, and then every
    sample's row by its sum over the prototypes, so that at the end each row sums to one (section
    3.1; Cuturi 2013, arXiv 1306.0895). It is done with logarithms, which no epsilon > 0 overflows.
    Inside a `tf.distribute` replica the samples are those of the global batch.

    Args:
      scores: float [B, K] of B samples and K prototypes.
      epsilon: > 0; the smaller it is, the more of a row is in one code.
      rounds: >= 1.
      others: float [M, K], scores of more samples, which take part in the sums over the samples
        and get no codes; the same on all replicas. None for none.
      with_others: whether they take part, a bool or a bool tensor [].

    Returns:
      float32 [B, K], rows that sum to one. No gradient flows through it.

    Raises:
      UserError: an epsilon or rounds that is not as described.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import sinkhorn_knopp
      >>> codes = sinkhorn_knopp(tf.constant([[0.9, 0.8], [0.9, 0.1]]))
      >>> print(codes.numpy().round(4))
      [[0.1429 0.8571]
       [1.     0.    ]]
    """
    _check_codes(epsilon=epsilon, rounds=rounds)
    log_codes = tf.stop_gradient(tf.cast(tf.convert_to_tensor(scores), tf.float32)) / epsilon
    if others is not None:
        others = tf.stop_gradient(tf.cast(tf.convert_to_tensor(others), tf.float32)) / epsilon
    for _ in range(rounds):
        # Of each replica's samples, [1, K], and from there of all.
        log_sums = tf.reduce_logsumexp(log_codes, axis=0, keepdims=True)
        log_sums = tf.reduce_logsumexp(distribution.gather(log_sums), axis=0)
        if others is not None:
            of_others = tf.reduce_logsumexp(others, axis=0)
            of_others = tf.where(with_others, of_others, of_others.dtype.min)
            log_sums = tf.reduce_logsumexp(tf.stack([log_sums, of_others]), axis=0)
            others = tf.nn.log_softmax(others - log_sums, axis=1)
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

    The mean over its assigned crops a of the mean over its other crops v of
    -sum_k q_ak log softmax(scores_v / temperature)_k, with the codes q of the crops a.

    Args:
      scores: float [B, V, K] of V crops of each sample and K prototypes, the assigned crops first.
      codes: float [B, A, K], rows that sum to one, of the first A crops; no gradient flows into
        them. None for those of `sinkhorn_knopp`, for each assigned crop alone.
      temperature: > 0.
      num_assigned: A, how many crops get codes where `codes` is None.
      epsilon, rounds: of `sinkhorn_knopp` where `codes` is None.

    Returns:
      float32 [B].

    Raises:
      UserError: an option or a shape that is not as described.

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
    check_temperature(temperature)
    scores = tf.cast(tf.convert_to_tensor(scores), tf.float32)
    if scores.shape.rank != 3:
        raise UserError(f"scores must be [B, V, K], got shape {scores.shape}")
    num_crops = scores.shape[1]
    if codes is not None:
        codes = tf.cast(tf.convert_to_tensor(codes), tf.float32)
        if codes.shape.rank != 3 or scores.shape[2] != codes.shape[2]:
            raise UserError(
                "scores must be [B, V, K] and codes [B, A, K], got shapes "
                f"{scores.shape} and {codes.shape}"
            )
        num_assigned = codes.shape[1]
    if not 1 <= num_assigned <= num_crops or num_crops < 2:
        raise UserError(
            "the assigned crops, num_assigned or those of codes, must be some of two or more, got "
            f"{num_assigned} of {num_crops}"
        )
    if codes is None:
        assigned = tf.unstack(scores[:, :num_assigned], axis=1)
        codes = [sinkhorn_knopp(of_crop, epsilon=epsilon, rounds=rounds) for of_crop in assigned]
        codes = tf.stack(codes, axis=1)
    codes = tf.stop_gradient(codes)
    # [B, A, K] and [B, V, K] -> [B, A, V]
    cross_entropy = -tf.matmul(codes, tf.nn.log_softmax(scores / temperature), transpose_b=True)
    is_other = 1.0 - tf.eye(num_assigned, num_crops)
    return tf.reduce_sum(cross_entropy * is_other, axis=[1, 2]) / (num_assigned * (num_crops - 1))


def _check_codes(*, epsilon: float, rounds: int) -> None:
    if not epsilon > 0:
        raise UserError(f"epsilon must be > 0, got {epsilon}")
    if rounds < 1:
        raise UserError(f"rounds must be >= 1, got {rounds}")


@keras.saving.register_keras_serializable(package="supcon_tf")
class SwAVLoss(PerSampleLoss):
    """SwAV for `compile` and `fit`: the mean of `swav_loss`; labels are unused.

    The codes are made in the model, which has the queue that they may need: `y_pred` is
    [B, A + V, K], the codes of the A assigned crops and then the scores of all V crops, as
    `methods.Prototypes` gives them.

    Args:
      temperature: as in `swav_loss`.
      num_assigned: A.
      reduction: a Keras reduction; with None, `[B]` values.
      name: of the loss.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import SwAVLoss
      >>> codes, scores = [[1., 0.], [1., 0.]], [[0., 0.], [0.1, 0.]]
      >>> round(float(SwAVLoss()(None, tf.constant([codes + scores]))), 4)  # log 2, log(1 + 1/e)
      0.5032
    """

    input: LossInput = "prototypes"

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        num_assigned: int = 2,
        reduction: str | None = "sum_over_batch_size",
        name: str = "swav_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        check_temperature(temperature)
        if num_assigned < 1:
            raise UserError(f"num_assigned must be >= 1, got {num_assigned}")
        self.temperature, self.num_assigned = temperature, num_assigned

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[B] values."""
        del y_true
        codes, scores = y_pred[:, : self.num_assigned], y_pred[:, self.num_assigned :]
        return swav_loss(scores, codes, temperature=self.temperature)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "num_assigned": self.num_assigned,
        }
