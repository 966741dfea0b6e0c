"""SupCon of anchors with a separate contrast set, such as the keys of a queue."""

from typing import Any

import tensorflow as tf

from supcon_tf.errors import UserError, check_flag
from supcon_tf.losses.dense import DensePairs
from supcon_tf.losses.labels import as_labels, to_tensor
from supcon_tf.losses.multiview import as_views, check_temperature, l2_normalize, share_label
from supcon_tf.losses.pairs import Denominator, Summation, check_formula, losses_of_pairs


def contrast_set_supcon_loss(
    labels: Any,
    features: Any,
    contrast_labels: Any,
    contrast_features: Any,
    *,
    contrast_mask: Any = None,
    temperature: float = 0.1,
    summation: Summation = "outside",
    denominator: Denominator = "all",
    scale_by_temperature: bool = True,
    normalize: bool = True,
    margin: float = 0.0,
) -> tf.Tensor:
    """Supervised contrastive loss of each sample with a given contrast set.

    `supcon_loss` (Khosla et al. 2020, arXiv 2004.11362, Eq. 2 and 3) where A(i) is the contrast
    set for every anchor i: P(i) are its rows that share a label with the anchor, N(i) its other
    rows. It must not contain the anchors. Nothing is gathered over replicas.

    The whole similarity matrix is in memory: several times 4 N V M bytes.

    Args:
      labels: class numbers or rows, as in `supcon_loss`.
      features: the anchors, [N, V, ...] of any float dtype; trailing axes are flattened.
      contrast_labels: [M] or [M, C], in the form of `labels`.
      contrast_features: [M, ...], each row as long as a view of an anchor.
      contrast_mask: bool [M], False for unused rows such as the empty slots of a queue; None uses
        all rows.
      temperature, summation, denominator, scale_by_temperature, normalize, margin: as in
        `supcon_loss`.

    Returns:
      float32 [N], the mean over the sample's views; 0 for a sample without positives, and for
      "only_negatives" without a negative.

    Raises:
      UserError: an invalid option, shape or dtype.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import contrast_set_supcon_loss
      >>> keys = tf.constant([[1., 0.], [0., 1.]])
      >>> values = contrast_set_supcon_loss([0, 2], keys[:, None], [0, 1], keys, temperature=1.0)
      >>> print(values.numpy().round(4))
      [0.3133 0.    ]
    """
    temperature = check_temperature(temperature)
    check_formula(summation=summation, denominator=denominator, margin=margin)
    check_flag("scale_by_temperature", scale_by_temperature)
    check_flag("normalize", normalize)
    anchors = as_views(features)
    contrast_features = to_tensor("contrast_features", contrast_features)
    contrast = as_views(contrast_features[:, None])  # [M, 1, D]
    if anchors.shape[2] != contrast.shape[2]:
        raise UserError(
            "rows of features and contrast_features must have the same length, got "
            f"{anchors.shape[2]} and {contrast.shape[2]}"
        )
    if labels is None or contrast_labels is None:
        raise UserError("labels and contrast_labels must both be given, got None")
    labels, validity = as_labels(labels, anchors, tf.constant(0))
    contrast_labels, contrast_validity = as_labels(contrast_labels, contrast, tf.constant(0))
    validity *= contrast_validity
    if labels.shape[1:] != contrast_labels.shape[1:]:
        raise UserError(
            "labels and contrast_labels must be [N] and [M], or [N, C] and [M, C], got shapes "
            f"{tuple(labels.shape)} and {tuple(contrast_labels.shape)}"
        )
    pairs = contrast_set_pairs(
        labels,
        anchors,
        contrast_labels,
        contrast[:, 0],
        contrast_mask=contrast_mask,
        temperature=temperature,
        normalize=normalize,
    )
    losses, _ = losses_of_pairs(pairs, summation=summation, denominator=denominator, margin=margin)
    # [N * V] -> [N]
    values = tf.reduce_mean(tf.reshape(losses, [-1, anchors.shape[1]]), axis=1)
    return values * (temperature * validity if scale_by_temperature else validity)


def _used_rows(contrast_mask: Any, contrast: tf.Tensor) -> tf.Tensor:
    """The mask of the contrast rows, bool [M]; one True without a mask."""
    if contrast_mask is None:
        return tf.constant(True)
    mask = to_tensor("contrast_mask", contrast_mask)
    if not mask.dtype.is_bool or not mask.shape.is_compatible_with(contrast.shape[:1]):
        raise UserError(
            f"contrast_mask must be bool [{contrast.shape[0]}], one per contrast row, got "
            f"{mask.dtype.name} of shape {mask.shape}"
        )
    return mask


def contrast_set_pairs(
    labels: tf.Tensor,
    anchors: tf.Tensor,
    contrast_labels: tf.Tensor,
    contrast: tf.Tensor,
    *,
    contrast_mask: Any,
    temperature: Any,
    normalize: bool = True,
) -> DensePairs:
    """The pairs of anchors float32 [N, V, D] with a contrast set [M, D] that does not have them.

    Args:
      labels, contrast_labels: int64 [N] and [M], or float32 [N, C] and [M, C].
      anchors, contrast: the rows.
      contrast_mask: bool [M], False for unused rows; None uses all.
      temperature: divides the similarities.
      normalize: L2-normalises the rows first.
    """
    positives = share_label(labels, contrast_labels)
    if normalize:
        anchors, contrast = l2_normalize(anchors), l2_normalize(contrast)
    is_used = _used_rows(contrast_mask, contrast)
    num_views, dim = anchors.shape[1:]
    # [N, V, D], [M, D] -> [N * V, M]
    similarities = tf.matmul(
        tf.reshape(anchors / temperature, [-1, dim]), contrast, transpose_b=True
    )
    return DensePairs(
        similarities,
        tf.repeat(positives & is_used, num_views, axis=0),
        tf.repeat(~positives & is_used, num_views, axis=0),
    )
