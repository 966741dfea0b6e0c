"""The supervised contrastive family: SupCon, SimCLR and N-pairs.

Equations: Khosla et al. 2020, "Supervised Contrastive Learning", arXiv 2004.11362. A batch holds
N samples of V views; every view is a row. For an anchor row i, A(i) are all other rows, P(i) the
rows of A(i) that share a label with it, N(i) the rest, and s_ij = z_i . z_j / temperature.
"""

import math
from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError, check_choice, check_flag, check_integer
from supcon_tf.losses.base import LossLabels, PerSampleLoss
from supcon_tf.losses.dense import Denominator, Summation, dense_supcon
from supcon_tf.losses.labels import as_labels, to_tensor
from supcon_tf.losses.multiview import (
    as_views,
    check_temperature,
    l2_normalize,
    reject_variable,
    rescale_to_samples_with_positives,
)
from supcon_tf.losses.streaming import is_self_contrast, streaming_supcon

Anchors = Literal["all_views", "one_view"]
Implementation = Literal["auto", "dense", "streaming"]

# Maximum number of similarities for which "auto" is dense (docs/loss.md). Above its limit,
# self-contrast streaming is also faster; general streaming only saves memory.
_MAX_DENSE_SELF_CONTRAST = 1024**2
_MAX_DENSE_GENERAL = 4096**2


def supcon_loss(
    labels: Any,
    features: Any,
    *,
    temperature: float = 0.1,
    summation: Summation = "outside",
    denominator: Denominator = "all",
    positives_cap: int | None = None,
    anchors: Anchors = "all_views",
    scale_by_temperature: bool = True,
    normalize: bool = True,
    implementation: Implementation = "auto",
) -> tf.Tensor:
    """Supervised contrastive loss of each sample.

    With summation "outside" (Eq. 2) an anchor's loss is -1/|P| sum_p (s_ip - log D_ip); with
    "inside" (Eq. 3) it is -log(1/|P| sum_p exp(s_ip) / D_ip). The denominator D_ip sums exp(s)
    over A(i) ("all"), over p and N(i) ("one_positive") or over N(i) ("only_negatives").

    In a `tf.distribute` replica the anchors are the local samples and the contrast set is the
    global batch.

    Args:
      labels: None (every sample is its own class), class numbers (integers [N] or [N, 1], or whole
        floats [N, 1]), or one-hot or multi-hot rows [N, C] of zeros and ones. Samples that share
        a label are positives.
      features: [N, V, ...] of any float dtype, with V >= 1 views of each sample. Trailing axes are
        flattened to [N, V, D] and the computation is in float32.
      temperature: > 0, divides the similarities.
      summation: whether the sum over positives is "outside" or "inside" the logarithm.
      denominator: "all", "one_positive" or "only_negatives".
      positives_cap: maximum number of positives from other samples, a multiple of V: all views of
        the first positives_cap / V other samples of the class, in batch order. Further samples
        of the class enter neither numerator nor denominator. None keeps all.
      anchors: "all_views", or "one_view" for view 0 only. The contrast set always has all views.
      scale_by_temperature: multiplies the loss by the temperature, which cancels the factor
        1 / temperature in its gradient.
      normalize: L2-normalises the rows first.
      implementation: "dense" computes the whole similarity matrix. "streaming" gives the same
        numbers in linear memory and has no positives_cap. "auto" streams batches of unknown size
        and batches with more than 1,024 x 1,024 similarities, or more than 4,096 x 4,096 with
        "one_positive", without `normalize`, with "one_view", on several replicas, or with a
        temperature below 0.025 or in a tensor. With a positives_cap it is dense.

    Returns:
      float32 [N], the mean over the sample's anchor views; 0 for a sample without positives, and
      for "only_negatives" without a negative.

    Raises:
      UserError: an invalid option, shape, dtype or label. In a graph, invalid label values raise
        InvalidArgumentError; with XLA the loss is NaN.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import supcon_loss
      >>> features = tf.constant([[[1., 0.]], [[1., 0.]], [[0., 1.]], [[0., 1.]]])
      >>> print(supcon_loss([0, 0, 1, 1], features, temperature=1.0).numpy().round(4))
      [0.5514 0.5514 0.5514 0.5514]
    """
    _check_options(
        temperature=temperature,
        summation=summation,
        denominator=denominator,
        anchors=anchors,
        implementation=implementation,
        positives_cap=positives_cap,
        scale_by_temperature=scale_by_temperature,
        normalize=normalize,
    )
    temperature = check_temperature(temperature)
    features = as_views(features)
    if positives_cap is not None and positives_cap % features.shape[1]:
        raise UserError(
            f"positives_cap must be a multiple of the {features.shape[1]} views, "
            f"got {positives_cap}"
        )
    if normalize:
        features = l2_normalize(features)
    first_row = distribution.first_row(tf.shape(features)[0])
    labels, validity = as_labels(labels, features, first_row)
    contrast_labels = distribution.gather(labels)
    contrast = distribution.gather(features)
    # The gather loses the static shape.
    contrast.set_shape([None, *features.shape[1:]])
    if anchors == "one_view":
        features = features[:, :1]
    options: dict[str, Any] = {
        "temperature": temperature,
        "summation": summation,
        "denominator": denominator,
    }
    if implementation == "auto":
        self_contrast = is_self_contrast(
            features,
            contrast,
            temperature=temperature,
            denominator=denominator,
            unit_rows=normalize,
        )
        max_dense = _MAX_DENSE_SELF_CONTRAST if self_contrast else _MAX_DENSE_GENERAL
        sizes = (*features.shape[:2], *contrast.shape[:2])
        is_large = None in sizes or math.prod(sizes) > max_dense
        implementation = "streaming" if is_large and positives_cap is None else "dense"
    if implementation == "streaming":
        values = streaming_supcon(
            labels, features, contrast_labels, contrast, first_row, unit_rows=normalize, **options
        )
    else:
        values = dense_supcon(
            labels,
            features,
            contrast_labels,
            contrast,
            first_row,
            positives_cap=positives_cap,
            **options,
        )
    return values * (temperature * validity if scale_by_temperature else validity)


def _check_options(
    *,
    temperature: float = 1.0,
    summation: str = "outside",
    denominator: str = "all",
    positives_cap: int | None = None,
    anchors: str = "all_views",
    scale_by_temperature: bool = True,
    normalize: bool = True,
    implementation: str = "auto",
) -> None:
    check_temperature(temperature)
    check_flag("scale_by_temperature", scale_by_temperature)
    check_flag("normalize", normalize)
    if positives_cap is not None:
        check_integer("positives_cap", positives_cap, at_least=0)
    if positives_cap is not None and implementation == "streaming":
        raise UserError(
            f"positives_cap needs implementation 'dense' or 'auto', got {positives_cap} "
            "with 'streaming'"
        )
    for name, value, choices in (
        ("summation", summation, Summation),
        ("denominator", denominator, Denominator),
        ("anchors", anchors, Anchors),
        ("implementation", implementation, Implementation),
    ):
        check_choice(name, value, get_args(choices))


@keras.saving.register_keras_serializable(package="supcon_tf")
class SupConLoss(PerSampleLoss):
    """Supervised contrastive loss for `compile` and `fit`: the mean of `supcon_loss`.

    The mean is over all samples of the global batch that have a positive. `y_true` are labels as
    in `supcon_loss` (integers are not cast to floats), `y_pred` the projections [N, V, D].

    Args:
      temperature, summation, denominator, positives_cap, anchors, scale_by_temperature,
        normalize, implementation: as in `supcon_loss`.
      reduction: a Keras reduction; None returns [N] values whose mean is the loss.
      name: name of the loss.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import SupConLoss
      >>> loss = SupConLoss(temperature=1.0)
      >>> features = tf.constant([[[1., 0.]], [[1., 0.]], [[0., 1.]], [[0., 1.]]])
      >>> round(float(loss(tf.constant([0, 0, 1, 1]), features)), 4)
      0.5514
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        summation: Summation = "outside",
        denominator: Denominator = "all",
        positives_cap: int | None = None,
        anchors: Anchors = "all_views",
        scale_by_temperature: bool = True,
        normalize: bool = True,
        implementation: Implementation = "auto",
        reduction: str | None = "sum_over_batch_size",
        name: str = "supcon_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        reject_variable(temperature)
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "summation": summation,
            "denominator": denominator,
            "positives_cap": positives_cap,
            "anchors": anchors,
            "scale_by_temperature": scale_by_temperature,
            "normalize": normalize,
            "implementation": implementation,
        }
        _check_options(**self.options)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the mean over the samples with a positive."""
        values = supcon_loss(y_true, y_pred, **self.options)
        return rescale_to_samples_with_positives(
            values, y_true, y_pred, positives_cap=self.options["positives_cap"]
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}


@keras.saving.register_keras_serializable(package="supcon_tf")
class SimCLRLoss(PerSampleLoss):
    """NT-Xent (Chen et al. 2020): SupCon with every sample as its own class. Ignores labels.

    Args:
      temperature, normalize, implementation: as in `supcon_loss`.
      scale_by_temperature: as in `supcon_loss`, but False by default, as in SimCLR's code.
      reduction, name: as in `SupConLoss`.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import SimCLRLoss
      >>> views = tf.constant([[[1., 0.], [1., 0.]], [[0., 1.], [0., 1.]]])
      >>> round(float(SimCLRLoss(temperature=1.0)(None, views)), 4)
      0.5514
    """

    labels: LossLabels = "none"

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        scale_by_temperature: bool = False,
        normalize: bool = True,
        implementation: Implementation = "auto",
        reduction: str | None = "sum_over_batch_size",
        name: str = "simclr_loss",
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
        """[N] values."""
        del y_true
        return supcon_loss(None, y_pred, **self.options)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}


@keras.saving.register_keras_serializable(package="supcon_tf")
class NPairsLoss(PerSampleLoss):
    """N-pairs (Sohn 2016), a special case of SupCon: one view, one positive, temperature 1.

    The positive of a sample is the first other sample of its class in the batch; the other
    samples of the class are ignored.

    Args:
      normalize: as in `supcon_loss`.
      reduction, name: as in `SupConLoss`.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import NPairsLoss
      >>> features = tf.constant([[[1., 0.]], [[1., 0.]], [[0., 1.]], [[0., 1.]]])
      >>> round(float(NPairsLoss()(tf.constant([0, 0, 1, 1]), features)), 4)
      0.5514
    """

    def __init__(
        self,
        *,
        normalize: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "n_pairs_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        check_flag("normalize", normalize)
        self.normalize = normalize

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the mean over the samples with a positive."""
        y_pred = to_tensor("y_pred", y_pred)
        if y_pred.shape.rank < 3 or y_pred.shape[1] != 1:
            raise UserError(f"NPairsLoss takes one view [N, 1, D], got shape {y_pred.shape}")
        values = supcon_loss(
            y_true, y_pred, temperature=1.0, positives_cap=1, normalize=self.normalize
        )
        return rescale_to_samples_with_positives(values, y_true, y_pred, positives_cap=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "normalize": self.normalize}
