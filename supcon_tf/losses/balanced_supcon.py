"""Balanced SupCon (BCL) for long-tailed classes: class centres and a class-averaged denominator.

Equation: Zhu et al. 2022, "Balanced Contrastive Learning for Long-Tailed Visual Recognition",
arXiv 2207.09052. Rows, A(i), P(i) and s_ij as in `supcon`.
"""

from collections.abc import Callable
from typing import Any, get_args

import keras
import tensorflow as tf

from supcon_tf.errors import UserError, check_choice
from supcon_tf.losses.base import LossLabels, PerSampleLoss
from supcon_tf.losses.label_sums import weighted_similarity
from supcon_tf.losses.labels import one_class_per_sample, to_tensor
from supcon_tf.losses.multiview import (
    as_views,
    check_temperature,
    l2_normalize,
    reject_variable,
)
from supcon_tf.losses.pairs import (
    Implementation,
    MultiviewBatch,
    log_add,
    make_pairs,
    multiview_batch,
)


def balanced_supcon_loss(
    labels: Any,
    features: Any,
    centers: Any,
    *,
    temperature: float = 0.1,
    implementation: Implementation = "auto",
) -> tf.Tensor:
    """Balanced supervised contrastive loss of each sample.

    A centre per class joins the contrast set. An anchor's loss is
    -1/|P| sum_p log(exp(s_ip) / D_i), where P(i) contains the centre of its class. D_i is the sum
    over classes of the mean of exp(s_ij) over the class's rows in A(i) and its centre: large
    classes do not dominate it, and every class is in it. The paper adds cross-entropy of logits +
    log class prior, times 1.0, and takes 0.35 times this loss.

    In a `tf.distribute` replica the anchors are the local samples and the contrast set is the
    global batch.

    Args:
      labels: class numbers in [0, C), integers [N] or [N, 1], or one-hot rows [N, C].
      features: [N, V, ...] of any float dtype, with V >= 1 views of each sample. Trailing axes are
        flattened to [N, V, D], L2-normalised, and the computation is in float32.
      centers: [C, D] of any float dtype, one row per class; L2-normalised. All replicas give the
        same.
      temperature: > 0, divides the similarities.
      implementation: as in `supcon_loss`. The similarities to the centres, [N, V, C], are always
        in memory.

    Returns:
      float32 [N], the mean over the sample's views.

    Raises:
      UserError: an invalid option, shape, dtype or label. In a graph, invalid label values raise
        InvalidArgumentError; with XLA the loss is NaN.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import balanced_supcon_loss
      >>> features, centers = tf.constant([[[1., 0.]], [[0., 1.]]]), tf.eye(2)
      >>> print(balanced_supcon_loss([0, 1], features, centers, temperature=1.0).numpy().round(4))
      [0.3133 0.3133]
    """
    check_choice("implementation", implementation, get_args(Implementation))
    temperature = check_temperature(temperature)
    features, centers = as_views(features), to_tensor("centers", centers)
    if not centers.dtype.is_floating or centers.shape.rank != 2 or centers.shape[0] is None:
        raise UserError(
            f"centers must be floats [C, D], got {centers.dtype.name} of shape {centers.shape}"
        )
    if centers.shape[1] != features.shape[2]:
        raise UserError(
            f"centers must have the {features.shape[2]} numbers of a feature, got shape "
            f"{centers.shape}"
        )
    num_classes = centers.shape[0]
    if num_classes < 2:
        raise UserError(f"centers must be of at least two classes, got shape {centers.shape}")
    scores = tf.zeros([features.shape[0] or tf.shape(features)[0], num_classes])
    labels, validity = one_class_per_sample(labels, scores)
    batch = multiview_batch(labels, features, temperature=temperature)
    # [C], of the rows in the contrast set.
    sizes = tf.math.bincount(tf.cast(batch.contrast_labels, tf.int32), minlength=num_classes)
    sizes = tf.cast(sizes * batch.contrast.shape[1], tf.float32)
    centers = l2_normalize(tf.cast(centers, tf.float32)) * temperature**-0.5
    to_centers = tf.matmul(batch.anchor_rows(), centers, transpose_b=True)  # [R, C]
    own = tf.one_hot(batch.repeat_for_rows(labels), num_classes)
    to_own_center = tf.reduce_sum(own * to_centers, axis=1)
    mean, count = weighted_similarity(batch)
    mean_with_center = (count * mean + to_own_center) / (count + 1)
    log_denominator = _log_denominator(batch, implementation, sizes, to_centers, own)
    return batch.sample_means(log_denominator - mean_with_center) * validity


def _log_denominator(
    batch: MultiviewBatch,
    implementation: Implementation,
    sizes: tf.Tensor,
    to_centers: tf.Tensor,
    own: tf.Tensor,
) -> tf.Tensor:
    """log D of each anchor row, [R].

    Args:
      batch: anchors and contrast set.
      implementation: of the sums over the contrast set.
      sizes: float32 [C], rows of each class in the contrast set.
      to_centers: float32 [R, C], similarities to the centres.
      own: float32 [R, C], one-hot class of the anchor.
    """
    # A class has its rows and its centre; the anchor itself is not in its own class's mean.
    log_sizes = tf.math.log(sizes + 1 - own)
    pairs = make_pairs(batch, implementation=implementation)
    row_log_weights = -tf.math.log(tf.gather(sizes, batch.contrast_labels) + 1)
    log_negatives = pairs.log_sum("negatives", tf.repeat(row_log_weights, batch.contrast.shape[1]))
    log_positives, _ = pairs.positive_log_sum()
    log_positives -= tf.reduce_sum(own * log_sizes, axis=1)
    log_centers = tf.reduce_logsumexp(to_centers - log_sizes, axis=1)
    return log_add(log_add(log_negatives, log_positives), log_centers)


@keras.saving.register_keras_serializable(package="supcon_tf")
class BalancedSupConLoss(PerSampleLoss):
    """Balanced SupCon for `compile` and `fit`: the mean of `balanced_supcon_loss`.

    `y_true` are class numbers or one-hot rows, `y_pred` the projections [N, V, D].

    Args:
      centers: a function without arguments that returns the centres [C, D], such as
        `models.find_balanced_classifier(model).centers`; `fit` then trains the variables of the
        layer. In a stage None takes those of the model. A loss that was loaded from a file has
        None: compile the loaded model with its own centres.
      temperature, implementation: as in `balanced_supcon_loss`.
      reduction: a Keras reduction; None returns [N] values.
      name: name of the loss.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import BalancedSupConLoss
      >>> loss = BalancedSupConLoss(lambda: tf.eye(2), temperature=1.0)
      >>> round(float(loss(tf.constant([0, 1]), tf.constant([[[1., 0.]], [[0., 1.]]]))), 4)
      0.3133
    """

    labels: LossLabels = "single"

    def __init__(
        self,
        centers: Callable[[], Any] | None = None,
        *,
        temperature: float = 0.1,
        implementation: Implementation = "auto",
        reduction: str | None = "sum_over_batch_size",
        name: str = "balanced_supcon_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        reject_variable(temperature)
        check_temperature(temperature)
        check_choice("implementation", implementation, get_args(Implementation))
        if centers is not None and not callable(centers):
            raise UserError(
                "centers must be a function that returns [C, D], such as the `centers` of a layer, "
                f"got {type(centers).__name__}"
            )
        self.centers = centers
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "implementation": implementation,
        }

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values."""
        if self.centers is None:
            raise UserError(
                "BalancedSupConLoss has no centres: compile the model with "
                "BalancedSupConLoss(centers), also after loading it from a file"
            )
        return balanced_supcon_loss(y_true, y_pred, self.centers(), **self.options)

    def get_config(self) -> dict[str, Any]:
        # The centres belong to the model; a copy of them would be others.
        return {**super().get_config(), "centers": None}
