"""SupCon, with the options of its family.

Equations: Khosla et al. 2020, "Supervised Contrastive Learning", arXiv 2004.11362. A batch holds
N samples of V views; every view is a row. For an anchor row i, A(i) are all other rows, P(i) the
rows of A(i) that share a label with it, N(i) the rest, and s_ij = z_i . z_j / temperature.
"""

import functools
from typing import Any, get_args

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError, check_choice, check_flag, check_integer
from supcon_tf.losses.base import PerSampleLoss
from supcon_tf.losses.label_sums import MultiLabel, label_weights, weighted_similarity
from supcon_tf.losses.labels import as_labels, require, to_tensor
from supcon_tf.losses.multiview import (
    as_views,
    check_temperature,
    reject_variable,
    rescale_to_masked_mean,
)
from supcon_tf.losses.pairs import (
    Anchors,
    Denominator,
    Implementation,
    MultiviewBatch,
    Summation,
    check_formula,
    losses_of_pairs,
    make_pairs,
    multiview_batch,
)


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
    margin: float = 0.0,
    multi_label: MultiLabel = "any",
    contrast_gradient: bool = True,
    positive_mask: Any = None,
) -> tf.Tensor:
    """Supervised contrastive loss of each sample.

    With summation "outside" (Eq. 2) an anchor's loss is -1/|P| sum_p (s_ip - log D_ip); with
    "inside" (Eq. 3) it is -log(1/|P| sum_p exp(s_ip) / D_ip). The denominator D_ip sums exp(s)
    over A(i) ("all"), over p and N(i) ("one_positive") or over N(i) ("only_negatives"), or adds the
    mean over P(i) to the sum over N(i) ("mean_positive"). "one_positive" is SINCERE (Feeney &
    Hughes 2023, arXiv 2309.14277), and with a margin eps-SupInfoNCE (Barbano et al. 2023, arXiv
    2211.05568); the paper's "in" form is "mean_positive" with "inside", minus log|P|.

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
      denominator: "all", "one_positive", "mean_positive" or "only_negatives".
      positives_cap: maximum number of positives from other samples, a multiple of V: all views of
        the first positives_cap / V other samples of the class, in batch order. Further samples
        of the class enter neither numerator nor denominator. None keeps all.
      anchors: "all_views", or "one_view" for view 0 only. The contrast set always has all views.
      scale_by_temperature: multiplies the loss by the temperature, which cancels the factor
        1 / temperature in its gradient.
      normalize: L2-normalises the rows first.
      implementation: "dense" computes the whole similarity matrix. "streaming" gives the same
        numbers in linear memory and has no positives_cap or positive_mask. "auto" streams batches
        of unknown size and batches with more than 1,024 x 1,024 similarities, or more than
        4,096 x 4,096 without `normalize` or `contrast_gradient`, with "one_view", on several
        replicas, or with a temperature below 0.025 or in a tensor. With a positives_cap or a
        positive_mask it is dense.
      margin: >= 0, subtracted from the similarities s_ip of positives in denominators.
      multi_label: what rows [N, C] with several labels count. "any": samples that share a label
        are positives, all alike. "overlap": a positive's weight is the number of shared labels.
        "per_label": the mean over the anchor's labels of the loss with the positives of this label,
        without labels that have no positive (MulSupCon, Zhang & Wu, AAAI 2024, with its 1/|y|
        weights: each anchor counts once). Denominators are as for "any". The last two need
        summation "outside" and another denominator than "one_positive".
      contrast_gradient: False for a gradient through the anchors only, as where the contrast set
        is detached.
      positive_mask: bool [N, N] of the global batch; entry i, j says whether sample j is a positive
        of sample i instead of a shared label. The other views of a sample always are. `labels` must
        then be None.

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
    values, _ = _supcon(
        labels,
        features,
        positive_mask=positive_mask,
        temperature=temperature,
        summation=summation,
        denominator=denominator,
        positives_cap=positives_cap,
        anchors=anchors,
        scale_by_temperature=scale_by_temperature,
        normalize=normalize,
        implementation=implementation,
        margin=margin,
        multi_label=multi_label,
        contrast_gradient=contrast_gradient,
    )
    return values


def _supcon(
    labels: Any, features: Any, *, positive_mask: Any = None, **options: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """The loss of each sample, float32 [N], and whether it has a positive, bool [N]."""
    _check_options(**options)
    if positive_mask is not None:
        _check_mask_options(labels, **options)
    temperature = check_temperature(options["temperature"])
    features = as_views(features)
    first_row = distribution.first_row(tf.shape(features)[0])
    labels, validity = as_labels(labels, features, first_row)
    batch = multiview_batch(
        labels,
        features,
        temperature=temperature,
        normalize=options["normalize"],
        anchors=options["anchors"],
        contrast_gradient=options["contrast_gradient"],
    )
    cap, num_views = options["positives_cap"], features.shape[1]
    if cap is not None and cap % num_views:
        raise UserError(f"positives_cap must be a multiple of the {num_views} views, got {cap}")
    if positive_mask is not None:
        positive_mask, is_square = _local_mask(positive_mask, batch)
        validity *= is_square
    pairs = make_pairs(
        batch,
        implementation=options["implementation"],
        positives_cap=cap,
        positive_mask=positive_mask,
    )
    positive_mean = None
    if labels.shape.rank == 1 and cap is None and positive_mask is None:
        positive_mean = functools.partial(weighted_similarity, batch)
    elif options["multi_label"] != "any" and labels.shape.rank == 2:
        weights = label_weights(batch, options["multi_label"])
        positive_mean = functools.partial(weighted_similarity, batch, weights)
    losses, has_positive = losses_of_pairs(
        pairs,
        summation=options["summation"],
        denominator=options["denominator"],
        margin=options["margin"],
        positive_mean=positive_mean,
    )
    factor = temperature * validity if options["scale_by_temperature"] else validity
    has_positive = tf.reduce_any(tf.reshape(has_positive, [-1, batch.anchors.shape[1]]), axis=1)
    return batch.sample_means(losses) * factor, has_positive


def _check_mask_options(labels: Any, *, implementation: str, multi_label: str, **_: Any) -> None:
    """Rejects what cannot be combined with a positive_mask."""
    if labels is not None:
        raise UserError("labels must be None with a positive_mask, which replaces them")
    if implementation == "streaming":
        raise UserError("a positive_mask needs implementation 'dense' or 'auto', got 'streaming'")
    if multi_label != "any":
        raise UserError(
            f"multi_label is for rows of labels, got {multi_label!r} with a positive_mask"
        )


def _local_mask(positive_mask: Any, batch: MultiviewBatch) -> tuple[tf.Tensor, tf.Tensor]:
    """The rows of this replica's anchors of a mask of the global batch, bool [N, M]; validity."""
    mask = to_tensor("positive_mask", positive_mask)
    if not mask.dtype.is_bool or mask.shape.rank != 2:
        raise UserError(
            f"positive_mask must be bool [N, N], got {mask.dtype.name} of shape {mask.shape}: cast "
            "it with tf.cast(mask, bool), Keras makes floats of labels"
        )
    num_samples = batch.contrast.shape[0]
    if num_samples is not None and not mask.shape.is_compatible_with([num_samples] * 2):
        raise UserError(
            f"positive_mask must be [{num_samples}, {num_samples}], a row and a column per sample "
            f"of the global batch, got {mask.shape}"
        )
    size = tf.shape(batch.contrast)[0]
    validity = require(
        tf.reduce_all(tf.shape(mask) == size),
        "positive_mask must have a row and a column per sample of the global batch",
        tf.shape(mask),
    )
    return mask[batch.first_row : batch.first_row + tf.shape(batch.anchors)[0]], validity


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
    margin: float = 0.0,
    multi_label: str = "any",
    contrast_gradient: bool = True,
) -> None:
    check_temperature(temperature)
    check_flag("scale_by_temperature", scale_by_temperature)
    check_flag("normalize", normalize)
    check_flag("contrast_gradient", contrast_gradient)
    check_formula(summation=summation, denominator=denominator, margin=margin)
    if positives_cap is not None:
        check_integer("positives_cap", positives_cap, at_least=0)
    if positives_cap is not None and implementation == "streaming":
        raise UserError(
            f"positives_cap needs implementation 'dense' or 'auto', got {positives_cap} "
            "with 'streaming'"
        )
    for name, value, choices in (
        ("anchors", anchors, Anchors),
        ("implementation", implementation, Implementation),
        ("multi_label", multi_label, MultiLabel),
    ):
        check_choice(name, value, get_args(choices))
    if multi_label != "any" and (
        summation == "inside" or denominator == "one_positive" or positives_cap is not None
    ):
        raise UserError(
            f"multi_label={multi_label!r} needs summation 'outside', another denominator than "
            "'one_positive' and no positives_cap"
        )


@keras.saving.register_keras_serializable(package="supcon_tf")
class SupConLoss(PerSampleLoss):
    """Supervised contrastive loss for `compile` and `fit`: the mean of `supcon_loss`.

    The mean is over all samples of the global batch that have a positive. `y_true` are labels as
    in `supcon_loss` (integers are not cast to floats), `y_pred` the projections [N, V, D].

    Args:
      temperature, summation, denominator, positives_cap, anchors, scale_by_temperature,
        normalize, implementation, margin, multi_label, contrast_gradient: as in `supcon_loss`.
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
        margin: float = 0.0,
        multi_label: MultiLabel = "any",
        contrast_gradient: bool = True,
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
            "margin": margin,
            "multi_label": multi_label,
            "contrast_gradient": contrast_gradient,
        }
        _check_options(**self.options)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the mean over the samples with a positive."""
        return rescale_to_masked_mean(*_supcon(y_true, y_pred, **self.options))
