"""SupCon of anchors against a contrast set that is not their own batch, such as a memory's keys."""

from typing import Any, get_args

import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.losses.dense import Denominator, Summation, masked_supcon
from supcon_tf.losses.multiview import (
    as_labels,
    as_views,
    check_temperature,
    l2_normalize,
    share_label,
)


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
) -> tf.Tensor:
    """Supervised contrastive loss of each sample against rows of another origin.

    `supcon_loss` (Khosla et al. 2020, arXiv 2004.11362, Eq. 2 and 3) where A(i) is the contrast
    set, the same for all anchors: P(i) are its rows that share a label with anchor i, N(i) its
    other rows. No row of it may be an anchor itself. Nothing is gathered over replicas: each takes
    the rows that it is given.

    The whole matrix of similarities is held: 4 N V M bytes, a few times over.

    Args:
      labels: integers [N], or one-hot or multi-hot rows [N, C].
      features: the anchors, [N, V, ...] of any float dtype; trailing axes are flattened.
      contrast_labels: [M] or [M, C], in the form of `labels`.
      contrast_features: [M, ...] of as many numbers per row as an anchor's view.
      contrast_mask: bool [M], False for rows that are not there, such as empty slots of a queue;
        None for all being there.
      temperature, summation, denominator, scale_by_temperature, normalize: as in `supcon_loss`.

    Returns:
      float32 [N], the mean over the sample's views; 0 for a sample without positives, and for
      "only_negatives" where there is no negative.

    Raises:
      UserError: an option or a shape that is not as described.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import contrast_set_supcon_loss
      >>> keys = tf.constant([[1., 0.], [0., 1.]])
      >>> values = contrast_set_supcon_loss([0, 2], keys[:, None], [0, 1], keys, temperature=1.0)
      >>> print(values.numpy().round(4))
      [0.3133 0.    ]
    """
    check_temperature(temperature)
    for name, value, choices in (
        ("summation", summation, Summation),
        ("denominator", denominator, Denominator),
    ):
        if value not in get_args(choices):
            raise UserError(f"{name} must be one of {get_args(choices)}, got {value!r}")
    anchors = as_views(features)
    contrast_features = tf.convert_to_tensor(contrast_features)
    contrast = as_views(contrast_features[:, None])  # [M, 1, D]
    if anchors.shape[2] != contrast.shape[2]:
        raise UserError(
            "features and contrast_features must agree in their length, got "
            f"{anchors.shape[2]} and {contrast.shape[2]}"
        )
    if labels is None or contrast_labels is None:
        raise UserError("labels and contrast_labels must both be given, got None")
    shares_label = shared_with(labels, anchors, contrast_labels, contrast)
    if normalize:
        anchors, contrast = l2_normalize(anchors), l2_normalize(contrast)
    # [N, V, D], [M, D] -> [N, V, M, 1]
    logits = tf.einsum("nvd,md->nvm", anchors / temperature, contrast[:, 0])[..., None]
    is_there = tf.constant(True) if contrast_mask is None else tf.cast(contrast_mask, tf.bool)
    values = masked_supcon(
        logits,
        (shares_label & is_there)[:, None, :, None],
        (~shares_label & is_there)[:, None, :, None],
        summation=summation,
        denominator=denominator,
    )
    return values * temperature if scale_by_temperature else values


def shared_with(
    labels: Any, anchors: tf.Tensor, contrast_labels: Any, contrast: tf.Tensor
) -> tf.Tensor:
    """Which rows of the contrast set share a label with an anchor: bool [N, M]."""
    of_anchors = as_labels(labels, anchors, tf.constant(0))
    of_contrast = as_labels(contrast_labels, contrast, tf.constant(0))
    if of_anchors.shape[1:] != of_contrast.shape[1:]:
        raise UserError(
            "labels and contrast_labels must be of one form, [N] and [M] or [N, C] and [M, C], got "
            f"shapes {tuple(of_anchors.shape)} and {tuple(of_contrast.shape)}"
        )
    return share_label(of_anchors, of_contrast)
