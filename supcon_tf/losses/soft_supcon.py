"""SupCon with soft labels: mixed images, label smoothing, a teacher's probabilities.

After GenSCL (Kim et al. 2022, arXiv 2206.00384), whose weights are cosines of the targets; here
they are dot products. Rows, A(i) and s_ij as in `supcon`.
"""

from typing import Any, get_args

import keras
import tensorflow as tf

from supcon_tf.errors import UserError, check_choice, check_flag
from supcon_tf.losses.base import LossLabels, PerSampleLoss
from supcon_tf.losses.label_sums import weighted_similarity
from supcon_tf.losses.labels import check_same_length, require, to_tensor
from supcon_tf.losses.multiview import (
    as_views,
    check_temperature,
    reject_variable,
    rescale_to_masked_mean,
)
from supcon_tf.losses.pairs import Implementation, make_pairs, multiview_batch


def soft_supcon_loss(
    targets: Any,
    features: Any,
    *,
    temperature: float = 0.1,
    scale_by_temperature: bool = False,
    normalize: bool = True,
    implementation: Implementation = "auto",
) -> tf.Tensor:
    """Supervised contrastive loss of each sample, with the similarity of targets as weights.

    An anchor's loss is -sum_j w_ij log softmax(s_i)_j over A(i), where w_ij = t_i . t_j divided by
    its sum over A(i). One-hot rows give SupCon's "outside" loss, without its factor temperature.

    In a `tf.distribute` replica the anchors are the local samples and the contrast set is the
    global batch.

    Args:
      targets: one row per sample, [N, C] floats >= 0 of any sum, or integers 0 and 1. A row of
        zeros has no positive.
      features: [N, V, ...] of any float dtype, with V >= 1 views of each sample. Trailing axes are
        flattened to [N, V, D] and the computation is in float32.
      temperature: > 0, divides the similarities.
      scale_by_temperature: multiplies the loss by the temperature, as `supcon_loss` does by
        default.
      normalize: L2-normalises the rows first.
      implementation: as in `supcon_loss`.

    Returns:
      float32 [N], the mean over the sample's views; 0 for a sample without positives.

    Raises:
      UserError: an invalid option, shape, dtype or target. In a graph, invalid target values raise
        InvalidArgumentError; with XLA the loss is NaN.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import soft_supcon_loss
      >>> features = tf.constant([[[1., 0.]], [[1., 0.]], [[0., 1.]]])
      >>> targets = [[1., 0.], [0.5, 0.5], [0., 1.]]
      >>> print(soft_supcon_loss(targets, features, temperature=1.0).numpy().round(4))
      [0.3133 0.8133 0.6931]
    """
    values, _ = _soft_supcon(
        targets,
        features,
        temperature=temperature,
        scale_by_temperature=scale_by_temperature,
        normalize=normalize,
        implementation=implementation,
    )
    return values


def _soft_supcon(targets: Any, features: Any, **options: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The loss of each sample, float32 [N], and whether it has a positive, bool [N]."""
    _check_options(**options)
    temperature = check_temperature(options["temperature"])
    features = as_views(features)
    targets, validity = _as_targets(targets, features)
    batch = multiview_batch(
        targets, features, temperature=temperature, normalize=options["normalize"]
    )
    pairs = make_pairs(batch, implementation=options["implementation"])
    mean, total = weighted_similarity(batch)
    losses = tf.where(total > 0, pairs.log_sum("all") - mean, 0.0)
    factor = temperature * validity if options["scale_by_temperature"] else validity
    return batch.sample_means(losses) * factor, batch.sample_means(total) > 0


def _as_targets(targets: Any, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Targets as float32 [N, C], and their validity."""
    targets = to_tensor("targets", targets)
    if targets.shape.rank != 2 or targets.shape[1] == 1:
        raise UserError(
            f"targets must be rows [N, C], got shape {targets.shape}: supcon_loss takes class "
            "numbers"
        )
    validity = check_same_length(targets, features)
    rows = tf.cast(targets, tf.float32)
    if targets.dtype.is_integer:
        # Larger ones would be class numbers, such as labels per view.
        validity *= require(
            tf.reduce_all(rows <= 1), "integer targets must be 0 or 1: give weights as floats", rows
        )
    validity *= require(
        tf.reduce_all((rows >= 0) & (rows < float("inf"))),
        "targets must be finite numbers >= 0",
        rows,
    )
    return rows, validity


def _check_options(
    *, temperature: Any, scale_by_temperature: bool, normalize: bool, implementation: str
) -> None:
    check_temperature(temperature)
    check_flag("scale_by_temperature", scale_by_temperature)
    check_flag("normalize", normalize)
    check_choice("implementation", implementation, get_args(Implementation))


@keras.saving.register_keras_serializable(package="supcon_tf")
class SoftSupConLoss(PerSampleLoss):
    """SupCon with soft labels for `compile` and `fit`: the mean of `soft_supcon_loss`.

    The mean is over all samples of the global batch that have a positive. `y_true` are targets
    [N, C], `y_pred` the projections [N, V, D].

    Args:
      temperature, scale_by_temperature, normalize, implementation: as in `soft_supcon_loss`.
      reduction: a Keras reduction; None returns [N] values whose mean is the loss.
      name: name of the loss.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import SoftSupConLoss
      >>> features = tf.constant([[[1., 0.]], [[1., 0.]], [[0., 1.]], [[0., 1.]]])
      >>> loss = SoftSupConLoss(temperature=1.0)
      >>> round(float(loss(tf.one_hot([0, 0, 1, 1], 2), features)), 4)
      0.5514
    """

    labels: LossLabels = "soft"

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        scale_by_temperature: bool = False,
        normalize: bool = True,
        implementation: Implementation = "auto",
        reduction: str | None = "sum_over_batch_size",
        name: str = "soft_supcon_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        reject_variable(temperature)
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "scale_by_temperature": scale_by_temperature,
            "normalize": normalize,
            "implementation": implementation,
        }
        _check_options(**self.options)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the mean over the samples with a positive."""
        return rescale_to_masked_mean(*_soft_supcon(y_true, y_pred, **self.options))
