"""Triplet loss: a positive must be nearer to the anchor than a negative, by a margin.

Sources: Weinberger & Saul 2009, "Distance Metric Learning for Large Margin Nearest Neighbor
Classification"; semi-hard negatives: Schroff et al. 2015, "FaceNet", arXiv 1503.03832; hardest
triplets of a batch: Hermans et al. 2017, "In Defense of the Triplet Loss for Person
Re-Identification", arXiv 1703.07737.
"""

from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import check_choice, check_flag, check_number
from supcon_tf.losses.base import PerSampleLoss
from supcon_tf.losses.labels import as_labels
from supcon_tf.losses.multiview import (
    as_views,
    l2_normalize,
    rescale_to_samples_with_positives,
    share_label,
)

Mining = Literal["hard", "semi_hard", "all"]


def triplet_loss(
    labels: Any,
    features: Any,
    *,
    margin: float = 0.2,
    mining: Mining = "hard",
    normalize: bool = True,
) -> tf.Tensor:
    """Triplet loss of each sample.

    An anchor row i, a positive p and a negative n cost max(0, margin + d_ip - d_in), where
    d_ij = ||z_i - z_j||^2. P(i) are all other rows that share a label with i, N(i) the rows that
    do not. The loss of an anchor depends on `mining`:

    - "hard": the triplet of its farthest positive and its nearest negative (Hermans et al. 2017,
      who do not square the distances).
    - "semi_hard": the mean over P(i). Each positive is paired with the nearest negative that is
      farther away than it (Schroff et al. 2015), or with the farthest negative if there is none.
    - "all": the mean over P(i) x N(i), the push term of Weinberger & Saul 2009.

    In a `tf.distribute` replica the anchors are the local samples; positives and negatives come
    from the global batch. The whole distance matrix is in memory: several times 4 (N V)^2 bytes.

    Args:
      labels: None (every sample is its own class), integers [N] or [N, 1], or one-hot or
        multi-hot rows [N, C]. Samples that share a label are positives.
      features: [N, V, ...] of any float dtype, with V >= 1 views of each sample. Trailing axes are
        flattened to [N, V, D] and the computation is in float32.
      margin: >= 0, in units of squared distance; unit vectors have distances from 0 to 4. Defaults
        to 0.2 as in Schroff et al. 2015.
      mining: "hard", "semi_hard" or "all".
      normalize: L2-normalises the rows first.

    Returns:
      float32 [N], the mean over the sample's views; 0 for an anchor without positives or without
      negatives.

    Raises:
      UserError: an invalid option, shape or dtype.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import triplet_loss
      >>> features = tf.constant([[[1., 0.]], [[0.8, 0.6]], [[0., 1.]], [[0., 1.]]])
      >>> print(triplet_loss([0, 0, 1, 1], features, margin=1.0).numpy().round(4))
      [0.  0.6 0.2 0.2]
    """
    _check_options(margin=margin, mining=mining, normalize=normalize)
    features = as_views(features)
    if normalize:
        features = l2_normalize(features)
    num_views, dim = features.shape[1:]
    first_row = distribution.first_row(tf.shape(features)[0])
    labels, validity = as_labels(labels, features, first_row)
    # [N, V, D] -> [R, D], R = N V anchors; [M, V, D] -> [S, D], S = M V rows of the global batch
    anchors = tf.reshape(features, [-1, dim])
    contrast = tf.reshape(distribution.gather(features), [-1, dim])
    distances = _distances(anchors, contrast)
    shares_label = share_label(
        tf.repeat(labels, num_views, axis=0),
        tf.repeat(distribution.gather(labels), num_views, axis=0),
    )
    positions = first_row * num_views + tf.range(tf.shape(anchors)[0])
    not_self = positions[:, None] != tf.range(tf.shape(contrast)[0])[None, :]
    anchor_loss = {"hard": _hard, "semi_hard": _semi_hard, "all": _all}[mining]
    losses = anchor_loss(distances, shares_label & not_self, ~shares_label & not_self, margin)
    # [R] -> [N]
    return tf.reduce_mean(tf.reshape(losses, [-1, num_views]), axis=1) * validity


def _check_options(*, margin: float, mining: str, normalize: bool) -> None:
    check_number("margin", margin, at_least=0)
    check_choice("mining", mining, get_args(Mining))
    check_flag("normalize", normalize)


def _distances(anchors: tf.Tensor, contrast: tf.Tensor) -> tf.Tensor:
    """||z_i - z_j||^2 - ||z_i||^2, float32 [R, S]: the anchor's length cancels in a triplet."""
    # Centring does not change distances, and differences of nearby rows keep their precision.
    rows = tf.cast(tf.shape(contrast)[0], contrast.dtype)
    center = tf.stop_gradient(tf.math.divide_no_nan(tf.reduce_sum(contrast, axis=0), rows))
    anchors, contrast = anchors - center, contrast - center
    products = tf.matmul(anchors, contrast, transpose_b=True)
    return tf.reduce_sum(tf.square(contrast), axis=1)[None, :] - 2.0 * products


# Each function takes distances [R, S] and two masks, and returns the loss of each anchor, [R]. If a
# mask is empty, the largest or smallest float32 replaces the distance, and the loss is 0.


def _hard(
    distances: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor, margin: float
) -> tf.Tensor:
    farthest = tf.reduce_max(tf.where(positives, distances, distances.dtype.min), axis=1)
    nearest = tf.reduce_min(tf.where(negatives, distances, distances.dtype.max), axis=1)
    return tf.nn.relu(margin + farthest - nearest)


def _semi_hard(
    distances: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor, margin: float
) -> tf.Tensor:
    in_order = tf.sort(tf.where(negatives, distances, distances.dtype.max), axis=1)
    farthest = tf.reduce_sum(tf.cast(negatives, tf.int32), axis=1, keepdims=True) - 1
    next_farther = tf.searchsorted(in_order, distances, side="right")
    negative = tf.maximum(tf.minimum(next_farther, farthest), 0)
    losses = tf.nn.relu(margin + distances - tf.gather(in_order, negative, axis=1, batch_dims=1))
    return _sum(losses, positives) / tf.maximum(_count(positives), 1.0)


def _all(
    distances: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor, margin: float
) -> tf.Tensor:
    """Weights a row by its number of violated triplets, which avoids an [R, S, S] array."""
    limits = tf.where(positives, margin + distances, distances.dtype.min)
    # Both counts use the same comparison: a triplet counts if d_in < margin + d_ip.
    in_order = tf.sort(tf.where(negatives, distances, distances.dtype.max), axis=1)
    of_positive = tf.searchsorted(in_order, limits, side="left")
    within = tf.searchsorted(tf.sort(limits, axis=1), distances, side="right")
    of_negative = tf.shape(limits)[1] - within
    pulled = _sum(tf.cast(of_positive, tf.float32) * limits, positives)
    pushed = _sum(tf.cast(of_negative, tf.float32) * distances, negatives)
    num_triplets = _count(positives) * _count(negatives)
    return (pulled - pushed) / tf.maximum(num_triplets, 1.0)


def _sum(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.where(mask, values, 0.0), axis=1)


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(mask, tf.float32), axis=1)


@keras.saving.register_keras_serializable(package="supcon_tf")
class TripletLoss(PerSampleLoss):
    """Triplet loss for `compile` and `fit`: the mean of `triplet_loss`.

    The mean is over all samples of the global batch that have a positive. `y_true` are labels as
    in `triplet_loss` (integers are not cast to floats), `y_pred` the projections [N, V, D].

    Args:
      margin, mining, normalize: as in `triplet_loss`.
      reduction: a Keras reduction; None returns [N] values whose mean is the loss.
      name: name of the loss.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import TripletLoss
      >>> features = tf.constant([[[1., 0.]], [[0.8, 0.6]], [[0., 1.]], [[0., 1.]]])
      >>> round(float(TripletLoss(margin=1.0)(tf.constant([0, 0, 1, 1]), features)), 4)
      0.25
    """

    def __init__(
        self,
        *,
        margin: float = 0.2,
        mining: Mining = "hard",
        normalize: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "triplet_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        self.options: dict[str, Any] = {"margin": margin, "mining": mining, "normalize": normalize}
        _check_options(**self.options)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the mean over the samples with a positive."""
        values = triplet_loss(y_true, y_pred, **self.options)
        return rescale_to_samples_with_positives(values, y_true, y_pred)
