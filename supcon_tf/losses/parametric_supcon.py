"""Parametric SupCon (PaCo, GPaCo): one softmax over class scores and contrast rows.

Equations: Cui et al. 2021, "Parametric Contrastive Learning", arXiv 2107.12028, and Cui et al.
2023, "Generalized Parametric Contrastive Learning", arXiv 2209.12400. Rows, A(i), P(i) and s_ij as
in `supcon`.
"""

import math
from typing import Any, get_args

import keras
import tensorflow as tf

from supcon_tf.errors import UserError, check_choice, check_integer, check_number
from supcon_tf.losses.base import LossInput, LossLabels, PerSampleLoss
from supcon_tf.losses.contrast_set import contrast_set_pairs
from supcon_tf.losses.label_sums import weighted_similarity
from supcon_tf.losses.labels import one_class_per_sample, to_tensor
from supcon_tf.losses.log_prior import LogPrior, add_log_prior, check_log_prior
from supcon_tf.losses.multiview import as_views, check_temperature, reject_variable
from supcon_tf.losses.pairs import Implementation, log_add, make_pairs, multiview_batch


def parametric_supcon_loss(
    labels: Any,
    logits: Any,
    features: Any,
    *,
    temperature: float = 0.1,
    alpha: float = 0.05,
    beta: float = 1.0,
    gamma: float = 1.0,
    label_smoothing: float = 0.0,
    log_prior: Any = None,
    implementation: Implementation = "auto",
) -> tf.Tensor:
    """Parametric supervised contrastive loss of each sample.

    An anchor's classes and contrast rows share one softmax with the denominator
    D_i = sum_c exp(l_ic) + gamma sum_A exp(s_ij), where l_i are the logits plus the log prior. The
    loss is -[beta sum_c t_ic (l_ic - log D_i) + alpha sum_P (s_ip - log D_i)] / (beta + alpha |P|)
    with the smoothed one-hot class t_i. With alpha and gamma 0 it is cross-entropy. One stage
    trains encoder and classifier.

    In a `tf.distribute` replica the anchors are the local samples and the contrast set is the
    global batch.

    Args:
      labels: class numbers in [0, C), integers [N] or [N, 1], or one-hot rows [N, C].
      logits: class scores of any float dtype, [N, C] for all views of a sample or [N, V, C].
      features: [N, V, ...] of any float dtype, with V >= 1 views of each sample. Trailing axes are
        flattened to [N, V, D], L2-normalised, and the computation is in float32.
      temperature: > 0, divides the similarities, not the logits.
      alpha: >= 0, weight of each positive row.
      beta: >= 0, weight of the class; alpha and beta must not both be 0.
      gamma: >= 0, multiplies the contrast rows' part of the denominator.
      label_smoothing: in [0, 1); the part of the class's weight to spread over all classes.
      log_prior: [C], log of each class's share of the training images, added to the logits (PaCo,
        for long-tailed classes). None for none.
      implementation: as in `supcon_loss`.

    Returns:
      float32 [N], the mean over the sample's views.

    Raises:
      UserError: an invalid option, shape, dtype or label. In a graph, invalid label values raise
        InvalidArgumentError; with XLA the loss is NaN.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import parametric_supcon_loss
      >>> features, logits = tf.constant([[[1., 0.]], [[0., 1.]]]), tf.eye(2)
      >>> print(parametric_supcon_loss([0, 1], logits, features, temperature=1.0).numpy().round(4))
      [0.5514 0.5514]
    """
    _check_options(
        temperature=temperature,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        label_smoothing=label_smoothing,
        implementation=implementation,
    )
    temperature = check_temperature(temperature)
    features = as_views(features)
    logits = _logits_per_view(logits, features)
    num_classes = logits.shape[2]
    logits, prior_validity = add_log_prior(logits, log_prior)
    labels, validity = one_class_per_sample(labels, logits[:, 0])
    validity *= prior_validity
    batch = multiview_batch(labels, features, temperature=temperature)
    log_rows = make_pairs(batch, implementation=implementation).log_sum("all") if gamma else None
    losses = _losses_of_rows(
        log_rows,
        weighted_similarity(batch),
        tf.reshape(logits, [-1, num_classes]),  # [N, V, C] -> [R, C]
        batch.repeat_for_rows(labels),
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        label_smoothing=label_smoothing,
    )
    return batch.sample_means(losses) * validity


def contrast_set_parametric_loss(
    labels: tf.Tensor,
    logits: tf.Tensor,
    features: tf.Tensor,
    contrast_labels: tf.Tensor,
    contrast_features: tf.Tensor,
    *,
    contrast_mask: tf.Tensor,
    temperature: float,
    alpha: float,
    beta: float,
    gamma: float,
    label_smoothing: float,
    log_prior: Any,
) -> tf.Tensor:
    """`parametric_supcon_loss` where A(i) is a given contrast set, such as the keys of a queue.

    Nothing is gathered over replicas. The whole similarity matrix is in memory.

    Args:
      labels: int64 [N] class numbers in [0, C).
      logits: float32 [N, V, C], of each view.
      features: the anchors, float32 [N, V, D].
      contrast_labels: int64 [M].
      contrast_features: float32 [M, D].
      contrast_mask: bool [M], False for unused rows.
      temperature, alpha, beta, gamma, label_smoothing, log_prior: as in `parametric_supcon_loss`.

    Returns:
      float32 [N], the mean over the sample's views.
    """
    num_views, num_classes = logits.shape[1:]
    logits, prior_validity = add_log_prior(logits, log_prior)
    labels, validity = one_class_per_sample(labels, logits[:, 0])
    pairs = contrast_set_pairs(
        labels,
        features,
        contrast_labels,
        contrast_features,
        contrast_mask=contrast_mask,
        temperature=temperature,
    )
    losses = _losses_of_rows(
        pairs.log_sum("all") if gamma else None,
        pairs.positive_mean(),
        tf.reshape(logits, [-1, num_classes]),  # [N, V, C] -> [R, C]
        tf.repeat(labels, num_views),
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        label_smoothing=label_smoothing,
    )
    return tf.reduce_mean(tf.reshape(losses, [-1, num_views]), axis=1) * validity * prior_validity


def _losses_of_rows(
    log_rows: tf.Tensor | None,
    positive_mean: tuple[tf.Tensor, tf.Tensor],
    logits: tf.Tensor,
    labels: tf.Tensor,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    label_smoothing: float,
) -> tf.Tensor:
    """The loss of each anchor row, [R].

    Args:
      log_rows: log of the sum over A(i) of exp(s_ij), [R]; None if gamma is 0.
      positive_mean: mean over P(i) of s_ip and |P(i)|, [R] each.
      logits: [R, C], with the log prior.
      labels: int64 [R].
      alpha, beta, gamma, label_smoothing: as in `parametric_supcon_loss`.
    """
    num_classes = logits.shape[1]
    largest = tf.reduce_max(logits, axis=1)
    if log_rows is not None:
        log_rows += math.log(gamma)
        largest = tf.maximum(largest, log_rows)
    # All scores less the largest: huge ones would lose their last digits in the difference.
    largest = tf.stop_gradient(largest)
    logits -= largest[:, None]
    log_denominator = tf.reduce_logsumexp(logits, axis=1)
    if log_rows is not None:
        log_denominator = log_add(log_denominator, log_rows - largest)
    targets = tf.one_hot(labels, num_classes)
    targets = (1 - label_smoothing) * targets + label_smoothing / num_classes
    # A class that a logit of -inf excludes has a target of 0.
    class_score = tf.reduce_sum(tf.math.multiply_no_nan(logits, targets), axis=1)
    mean, count = positive_mean
    weight = beta + alpha * count
    score = tf.math.divide_no_nan(beta * class_score + alpha * count * (mean - largest), weight)
    return tf.where(weight > 0, log_denominator - score, 0.0)


def _logits_per_view(logits: Any, features: tf.Tensor) -> tf.Tensor:
    """Logits [N, C] or [N, V, C] of any float dtype -> float32 [N, V, C]."""
    logits = to_tensor("logits", logits)
    num_views = features.shape[1]
    if logits.shape.rank == 2:
        logits = tf.repeat(logits[:, None], num_views, axis=1)
    expected = [features.shape[0], num_views, None]
    if (
        not logits.dtype.is_floating
        or not logits.shape.is_compatible_with(expected)
        or logits.shape[2] is None
    ):
        raise UserError(
            f"logits must be floats [N, C] or [N, {num_views}, C], got {logits.dtype.name} of "
            f"shape {logits.shape}"
        )
    return tf.cast(logits, tf.float32)


def _check_options(
    *,
    temperature: Any,
    alpha: float,
    beta: float,
    gamma: float,
    label_smoothing: float,
    implementation: str,
) -> None:
    check_temperature(temperature)
    check_number("alpha", alpha, at_least=0)
    check_number("beta", beta, at_least=0)
    check_number("gamma", gamma, at_least=0)
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    check_choice("implementation", implementation, get_args(Implementation))
    if not alpha and not beta:
        raise UserError("alpha or beta must be > 0, got 0 for both")


@keras.saving.register_keras_serializable(package="supcon_tf")
class ParametricSupConLoss(PerSampleLoss):
    """Parametric SupCon for `compile` and `fit`: the mean of `parametric_supcon_loss`.

    `y_true` are class numbers or one-hot rows. `y_pred` [N, V, C + D] are the logits of each view,
    followed by its projection, as `keras.layers.Concatenate` joins them.

    Args:
      num_classes: C, the length of the logits.
      temperature, alpha, beta, gamma, label_smoothing, implementation: as in
        `parametric_supcon_loss`.
      log_prior: as in `parametric_supcon_loss`, a sequence of numbers; or "source" in a stage, for
        the shares of the classes in its training images.
      reduction: a Keras reduction; None returns [N] values.
      name: name of the loss.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import ParametricSupConLoss
      >>> loss = ParametricSupConLoss(2, temperature=1.0)
      >>> outputs = tf.constant([[[1., 0., 1., 0.]], [[0., 1., 0., 1.]]])
      >>> round(float(loss(tf.constant([0, 1]), outputs)), 4)
      0.5514
    """

    input: LossInput = "logits_and_projection"
    labels: LossLabels = "single"

    def __init__(
        self,
        num_classes: int,
        *,
        temperature: float = 0.1,
        alpha: float = 0.05,
        beta: float = 1.0,
        gamma: float = 1.0,
        label_smoothing: float = 0.0,
        log_prior: LogPrior = None,
        implementation: Implementation = "auto",
        reduction: str | None = "sum_over_batch_size",
        name: str = "parametric_supcon_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        self.num_classes = check_integer("num_classes", num_classes, at_least=2)
        reject_variable(temperature)
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "alpha": alpha,
            "beta": beta,
            "gamma": gamma,
            "label_smoothing": label_smoothing,
            "implementation": implementation,
        }
        _check_options(**self.options)
        self.log_prior = check_log_prior(log_prior)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values."""
        y_pred = to_tensor("y_pred", y_pred)
        if y_pred.shape.rank != 3 or not (y_pred.shape[2] or 0) > self.num_classes:
            raise UserError(
                f"ParametricSupConLoss takes [N, V, C + D], {self.num_classes} logits and a "
                f"projection of each view, got shape {y_pred.shape}"
            )
        logits, features = y_pred[..., : self.num_classes], y_pred[..., self.num_classes :]
        return parametric_supcon_loss(
            y_true, logits, features, log_prior=self.log_prior, **self.options
        )

    def get_config(self) -> dict[str, Any]:
        own = {"num_classes": self.num_classes, "log_prior": self.log_prior}
        return {**super().get_config(), **own}
