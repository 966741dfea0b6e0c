"""SuNCEt: supervised noise contrastive estimation, the loss of a soft nearest-neighbour classifier.

Equation: Assran et al. 2020, "Supervision Accelerates Pre-training in Contrastive Semi-Supervised
Learning of Visual Representations", arXiv 2006.10803. Rows, A(i), P(i) and s_ij as in `supcon`.
"""

from typing import Any, NamedTuple, get_args

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.errors import UserError, check_choice, check_flag, check_number
from supcon_tf.losses.base import PerSampleLoss
from supcon_tf.losses.labels import as_labels, require, to_tensor
from supcon_tf.losses.multiview import (
    as_views,
    check_temperature,
    reject_variable,
    rescale_to_samples_with_positives,
    share_label,
)
from supcon_tf.losses.pairs import (
    MAX_DENSE_GENERAL,
    Implementation,
    MultiviewBatch,
    Pairs,
    make_pairs,
    multiview_batch,
)
from supcon_tf.losses.streaming.tiles import fold, merge_tiles, split_into_tiles, zeros_by_tile

# Maximum number of similarities of one tile.
_MAX_TILE_SIMILARITIES = 2048**2
# Lower bound of a class's sum of exponentials: its reciprocal, in the gradient, stays finite.
_MIN_SUM = 1e-30


def suncet_loss(
    labels: Any,
    features: Any,
    *,
    temperature: float = 0.1,
    label_smoothing: float = 0.0,
    normalize: bool = True,
    implementation: Implementation = "auto",
) -> tf.Tensor:
    """SuNCEt loss of each sample.

    An anchor's loss is -log(sum_P exp(s_ip) / sum_A exp(s_ia)), which is SupCon's "inside" loss
    minus log |P|. Class probabilities t_i generalise it to -sum_c t_ic log p_ic, where
    p_i = sum_A softmax_A(s_i)_a t_a; one-hot rows give the first form.

    In a `tf.distribute` replica the anchors are the local samples and the contrast set is the
    global batch.

    Args:
      labels: None (every sample is its own class), class numbers (integers [N] or [N, 1], or whole
        floats [N, 1]), integer one-hot or multi-hot rows [N, C], where samples that share a label
        are positives, or float rows [N, C] of class probabilities. A row of zeros has no label.
      features: [N, V, ...] of any float dtype, with V >= 1 views of each sample. Trailing axes are
        flattened to [N, V, D] and the computation is in float32.
      temperature: > 0, divides the similarities.
      label_smoothing: in [0, 1), the part of each row's probability, of anchors and contrast set,
        to spread over the C classes. Needs rows [N, C], because class numbers do not give C.
      normalize: L2-normalises the rows first.
      implementation: "dense" computes the whole similarity matrix. "streaming" gives the same
        numbers in linear memory. "auto" chooses as in `supcon_loss`, and for class probabilities
        streams more than 4,096 x 4,096 similarities and batches of unknown size.

    Returns:
      float32 [N], the mean over the sample's views; 0 for a sample without positives. The sum
      over classes leaves out classes that no other row has.

    Raises:
      UserError: an invalid option, shape, dtype or label. In a graph, invalid label values raise
        InvalidArgumentError; with XLA the loss is NaN.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import suncet_loss
      >>> features = tf.constant([[[1., 0.]], [[1., 0.]], [[0., 1.]], [[0., 1.]]])
      >>> print(suncet_loss([0, 0, 1, 1], features, temperature=1.0).numpy().round(4))
      [0.5514 0.5514 0.5514 0.5514]
    """
    _check_options(
        temperature=temperature,
        label_smoothing=label_smoothing,
        normalize=normalize,
        implementation=implementation,
    )
    temperature = check_temperature(temperature)
    features = as_views(features)
    first_row = distribution.first_row(tf.shape(features)[0])
    probabilities, in_range = _class_probabilities(labels, label_smoothing)
    labels, validity = as_labels(
        labels if probabilities is None else probabilities,
        features,
        first_row,
        check_rows=probabilities is None,
    )
    batch = multiview_batch(labels, features, temperature=temperature, normalize=normalize)
    if probabilities is None:
        losses = _sharing_losses(make_pairs(batch, implementation=implementation))
    else:
        losses = _probability_losses(batch, probabilities, implementation)
    return batch.sample_means(losses) * (in_range * validity)


def _sharing_losses(pairs: Pairs) -> tf.Tensor:
    """-log of the positives' share of the sum of exp(s) over A, of each anchor row."""
    log_positives, count = pairs.positive_log_sum()
    # -log(p / (p + n)) = softplus(log n - log p), also exact near zero.
    losses = tf.math.softplus(pairs.log_sum("negatives") - log_positives)
    return tf.where(count > 0, losses, 0.0)


def _probability_losses(
    batch: MultiviewBatch, probabilities: tf.Tensor, implementation: Implementation
) -> tf.Tensor:
    """-sum_c t_c log p_c of each anchor row."""
    anchors = _rows(batch.anchors, batch.labels, probabilities, batch.first_row)
    contrast_probabilities = distribution.gather(probabilities)
    contrast = _rows(batch.contrast, batch.contrast_labels, contrast_probabilities, 0)
    if implementation == "auto":
        sizes = (anchors.features.shape[0], contrast.features.shape[0])
        is_large = None in sizes or sizes[0] * sizes[1] > MAX_DENSE_GENERAL
        implementation = "streaming" if is_large else "dense"
    return (_streaming if implementation == "streaming" else _dense)(anchors, contrast)


class _Rows(NamedTuple):
    """The rows of a batch: every view of every sample."""

    features: tf.Tensor  # float32 [R, D]
    labels: tf.Tensor  # float32 [R, C] of zeros and ones
    probabilities: tf.Tensor  # float32 [R, C]
    positions: tf.Tensor  # int32 [R], the row's position in the contrast set


def _rows(
    features: tf.Tensor, labels: tf.Tensor, probabilities: tf.Tensor, first_row: Any
) -> _Rows:
    """Rows of samples [N, V, D] that begin at sample `first_row` of the global batch."""
    num_views, dim = features.shape[1:]
    rows = tf.reshape(features, [-1, dim])
    return _Rows(
        rows,
        tf.repeat(labels, num_views, axis=0),
        tf.repeat(probabilities, num_views, axis=0),
        first_row * num_views + tf.range(tf.shape(rows)[0]),
    )


def _dense(anchors: _Rows, contrast: _Rows) -> tf.Tensor:
    """The loss of each anchor row, float32 [R], from the whole similarity matrix."""
    logits = tf.matmul(anchors.features, contrast.features, transpose_b=True)
    not_self = anchors.positions[:, None] != contrast.positions[None, :]
    shares_label = share_label(anchors.labels, contrast.labels)
    return _probability_loss(
        logits, shares_label, not_self, anchors.probabilities, contrast.probabilities
    )


# A tf.function, because an eager loop would run one operation at a time.
@tf.function(autograph=False)
def _streaming(anchors: _Rows, contrast: _Rows) -> tf.Tensor:
    """The loss of each anchor row, float32 [R], one tile of anchor rows at a time."""
    num_contrast = contrast.features.shape[0] or tf.maximum(tf.shape(contrast.features)[0], 1)
    max_rows = -(-_MAX_TILE_SIMILARITIES // num_contrast)
    tiles = _Rows(*(split_into_tiles(part, max_rows) for part in anchors))

    def tile_losses(i: tf.Tensor, features: tf.Tensor, contrast_features: tf.Tensor) -> tf.Tensor:
        tile = _Rows(features, *(part[i] for part in tiles[1:]))
        return _dense(tile, contrast._replace(features=contrast_features))

    @tf.custom_gradient
    def losses_of(features: tf.Tensor, contrast_features: tf.Tensor) -> Any:
        losses = tf.map_fn(
            lambda i: tile_losses(i, features[i], contrast_features),
            tf.range(tf.shape(features)[0]),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )

        def gradients_of(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def add(
                i: tf.Tensor, tile_gradients: Any, contrast_gradient: tf.Tensor
            ) -> tuple[Any, tf.Tensor]:
                tile = features[i]
                with tf.GradientTape() as tape:
                    tape.watch((tile, contrast_features))
                    values = tile_losses(i, tile, contrast_features)
                slopes = tape.gradient(values, (tile, contrast_features), upstream[i])
                return tile_gradients.write(i, slopes[0]), contrast_gradient + slopes[1]

            tile_gradients, contrast_gradient = fold(
                0,
                tf.shape(features)[0],
                add,
                zeros_by_tile(features),
                tf.zeros_like(contrast_features),
            )
            return tile_gradients.stack(), contrast_gradient

        return losses, gradients_of

    losses = losses_of(tiles.features, contrast.features)
    return merge_tiles(losses, tf.shape(anchors.features)[0])


def _check_options(
    *, temperature: float, label_smoothing: float, normalize: bool, implementation: str
) -> None:
    check_temperature(temperature)
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    check_flag("normalize", normalize)
    check_choice("implementation", implementation, get_args(Implementation))


def _class_probabilities(labels: Any, label_smoothing: float) -> tuple[tf.Tensor | None, tf.Tensor]:
    """Smoothed float32 [N, C], or None for labels without probabilities; and their validity."""
    labels = None if labels is None else to_tensor("labels", labels)
    # Labels [N, 1] are class numbers.
    has_rows = labels is not None and labels.shape.rank == 2 and labels.shape[1] != 1
    if label_smoothing and not has_rows:
        got = None if labels is None else f"shape {labels.shape}"
        raise UserError(f"label_smoothing needs labels as rows [N, C], got {got}")
    if not has_rows or not (label_smoothing or labels.dtype.is_floating):
        return None, tf.ones([])
    probabilities = tf.cast(labels, tf.float32)
    sums = tf.reduce_sum(probabilities, axis=1)
    is_valid = (sums == 0) | (tf.abs(sums - 1) < 0.02)
    if not labels.dtype.is_floating:
        is_valid = tf.reduce_all(probabilities <= 1, axis=1)
    validity = require(
        tf.reduce_all(probabilities >= 0) & tf.reduce_all(is_valid),
        "float label rows [N, C] must be probabilities that sum to 1: cast memberships to integers",
        labels,
    )
    # A row of zeros, a sample without a label, stays zero.
    mean = tf.reduce_mean(probabilities, axis=1, keepdims=True)
    return (1 - label_smoothing) * probabilities + label_smoothing * mean, validity


def _probability_loss(
    logits: tf.Tensor,
    shares_label: tf.Tensor,
    not_self: tf.Tensor,
    probabilities: tf.Tensor,
    contrast_probabilities: tf.Tensor,
) -> tf.Tensor:
    """-sum_c t_c log p_c of each anchor: [R, S] and probabilities [R, C], [S, C] -> [R]."""
    positives = shares_label & not_self
    # The largest positive logit is subtracted, not the largest of all logits, to avoid underflow:
    # only positives have a class of the anchor.
    nearest = tf.reduce_max(tf.where(positives, logits, logits.dtype.min), axis=1, keepdims=True)
    nearest = tf.stop_gradient(nearest)
    similarities = tf.exp(tf.where(positives, logits - nearest, logits.dtype.min))
    in_class = tf.matmul(similarities, contrast_probabilities)
    log_all = _masked_logsumexp(logits, not_self)[:, None]
    log_probabilities = tf.math.log(tf.maximum(in_class, _MIN_SUM)) + nearest - log_all
    rows_with_class = tf.reduce_sum(tf.cast(contrast_probabilities > 0, tf.float32), axis=0)
    defined = (probabilities > 0) & (rows_with_class > 1)
    return -tf.reduce_sum(tf.where(defined, probabilities * log_probabilities, 0.0), axis=1)


def _masked_logsumexp(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Log-sum-exp over the last axis; if empty, a huge negative number with gradient 0."""
    return tf.reduce_logsumexp(tf.where(mask, values, values.dtype.min), axis=-1)


@keras.saving.register_keras_serializable(package="supcon_tf")
class SuNCEtLoss(PerSampleLoss):
    """SuNCEt for `compile` and `fit`: the mean of `suncet_loss`.

    The mean is over all samples of the global batch that have a positive. `y_true` are labels as
    in `suncet_loss` (integers are not cast to floats), `y_pred` the projections [N, V, D].

    Args:
      temperature, label_smoothing, normalize, implementation: as in `suncet_loss`.
      reduction: a Keras reduction; None returns [N] values whose mean is the loss.
      name: name of the loss.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.losses import SuNCEtLoss
      >>> features = tf.constant([[[1., 0.]], [[1., 0.]], [[0., 1.]], [[0., 1.]]])
      >>> round(float(SuNCEtLoss(temperature=1.0)(tf.constant([0, 0, 1, 1]), features)), 4)
      0.5514
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        label_smoothing: float = 0.0,
        normalize: bool = True,
        implementation: Implementation = "auto",
        reduction: str | None = "sum_over_batch_size",
        name: str = "suncet_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        reject_variable(temperature)
        self.options: dict[str, Any] = {
            "temperature": temperature,
            "label_smoothing": label_smoothing,
            "normalize": normalize,
            "implementation": implementation,
        }
        _check_options(**self.options)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """[N] values whose mean is the mean over the samples with a positive."""
        values = suncet_loss(y_true, y_pred, **self.options)
        # Smoothing makes samples of all classes positives.
        smoothing = self.options["label_smoothing"]
        probabilities, _ = _class_probabilities(y_true, smoothing)
        labels = y_true if probabilities is None else probabilities
        return rescale_to_samples_with_positives(values, labels, y_pred)
