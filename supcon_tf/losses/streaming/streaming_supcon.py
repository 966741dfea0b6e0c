"""The contrastive loss in linear memory: tiles of similarities, made again in the backward pass.

The algebra, the cost and what was measured are in docs/loss.md.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from supcon_tf.losses.dense import Denominator, Summation
from supcon_tf.losses.multiview import class_ranges
from supcon_tf.losses.streaming import general, self_contrast
from supcon_tf.losses.streaming.tiles import Tiles, cut, join


def streaming_supcon(
    labels: tf.Tensor,
    anchors: tf.Tensor,
    contrast_labels: tf.Tensor,
    contrast: tf.Tensor,
    first: tf.Tensor,
    *,
    temperature: Any,
    summation: Summation,
    denominator: Denominator,
    unit_rows: bool,
) -> tf.Tensor:
    """SupCon of anchors against a contrast set, one tile of similarities at a time.

    Args:
      labels, anchors, contrast_labels, contrast, first, summation, denominator: as in
        `dense_supcon`.
      temperature: a number, or a tensor, which then gets a gradient as well.
      unit_rows: the rows have length one.

    Returns:
      float32 [N], not scaled by the temperature.
    """
    against_itself = visits_pairs_once(
        anchors,
        contrast,
        temperature=temperature,
        denominator=denominator,
        unit_rows=unit_rows,
    )
    temperature = tf.convert_to_tensor(temperature, tf.float32)
    if against_itself:
        return _against_itself(
            labels, contrast, temperature, summation=summation, denominator=denominator
        )
    return _against_contrast(
        labels,
        anchors,
        contrast_labels,
        contrast,
        first,
        temperature,
        summation=summation,
        denominator=denominator,
    )


def visits_pairs_once(
    anchors: tf.Tensor,
    contrast: tf.Tensor,
    *,
    temperature: Any,
    denominator: Denominator,
    unit_rows: bool,
) -> bool:
    """Whether each pair of tiles serves both directions (`symmetric`), at half the price."""
    return (
        anchors is contrast
        and unit_rows
        and denominator != "one_positive"
        and isinstance(temperature, int | float)
        and temperature >= self_contrast.MIN_TEMPERATURE
    )


# Functions of their own, because a tape that runs eagerly would keep every tile.
@tf.function(autograph=False)
def _against_itself(
    labels: tf.Tensor, features: tf.Tensor, temperature: tf.Tensor, **options: Any
) -> tf.Tensor:
    num_views = features.shape[1]
    order = _class_order(labels, labels)

    @tf.custom_gradient
    def losses_of(features: tf.Tensor) -> Any:
        tiles = _tiles(features, order, 0, num_views, temperature)
        _, stop = _positive_tiles(order, num_views, tiles, num_views)
        losses, slopes = self_contrast.losses_and_slopes(tiles, stop, **options)

        def gradient_of(upstream: tf.Tensor) -> tf.Tensor:
            by_row = _of_rows(upstream, order, num_views)
            weighted = self_contrast.Slopes(*(by_row * slope for slope in slopes))
            gradient = self_contrast.gradient(tiles, stop, weighted, **options)
            return _of_features(gradient, order, features, temperature)

        return _of_samples(losses, order, features), gradient_of

    return losses_of(features)


@tf.function(autograph=False)
def _against_contrast(
    labels: tf.Tensor,
    anchors: tf.Tensor,
    contrast_labels: tf.Tensor,
    contrast: tf.Tensor,
    first: tf.Tensor,
    temperature: tf.Tensor,
    **options: Any,
) -> tf.Tensor:
    num_views = contrast.shape[1]
    order = _class_order(labels, contrast_labels)
    contrast_order = _class_order(contrast_labels, contrast_labels)

    @tf.custom_gradient
    def losses_of(anchors: tf.Tensor, contrast: tf.Tensor, temperature: tf.Tensor) -> Any:
        rows = _tiles(anchors, order, first, num_views, temperature)
        columns = _tiles(contrast, contrast_order, 0, num_views, temperature)
        start, stop = _positive_tiles(order, anchors.shape[1], columns, num_views)
        logs = general.log_denominators(rows, columns, denominator=options["denominator"])
        losses, terms = general.losses_and_terms(rows, columns, logs, start, stop, **options)

        def gradients_of(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            by_row = _of_rows(upstream, order, anchors.shape[1])
            weighted = terms._replace(weight=by_row * terms.weight)
            of_rows, of_columns = general.gradients(rows, columns, weighted, **options)
            # Both sides carry the root of the temperature, and s depends on their product.
            of_temperature = -tf.reduce_sum(of_rows * rows.rows) / temperature
            return (
                _of_features(of_rows, order, anchors, temperature),
                _of_features(of_columns, contrast_order, contrast, temperature),
                of_temperature,
            )

        return _of_samples(losses, order, anchors), gradients_of

    return losses_of(anchors, contrast, temperature)


class _ClassOrder(NamedTuple):
    """Samples in the order of their classes, so that their positives lie in few tiles."""

    samples: tf.Tensor  # int32 [N], a permutation
    labels: tf.Tensor  # in that order: int32 [N] class numbers, or float32 [N, C]
    begin: tf.Tensor  # int32 [N], where the class begins in the ordered contrast set
    end: tf.Tensor  # int32 [N]


def _class_order(labels: tf.Tensor, contrast_labels: tf.Tensor) -> _ClassOrder:
    """Class numbers are ordered; multi-hot rows may have positives anywhere."""
    if labels.shape.rank == 1:
        begin, end = class_ranges(labels, contrast_labels)
        samples = tf.argsort(begin)
        begin = tf.gather(begin, samples)
        return _ClassOrder(samples, begin, begin, tf.gather(end, samples))
    samples = tf.range(tf.shape(labels)[0])
    everywhere = tf.fill(tf.shape(samples), tf.shape(contrast_labels)[0])
    return _ClassOrder(samples, labels, tf.zeros_like(samples), everywhere)


def _tiles(
    features: tf.Tensor,
    order: _ClassOrder,
    first: Any,
    num_views: int,
    temperature: tf.Tensor,
) -> Tiles:
    """[N, A, D] -> tiles of rows in class order."""
    num_anchor_views, dim = features.shape[1:]
    positions = (first + order.samples)[:, None] * num_views + tf.range(num_anchor_views)
    # [N, A, D] -> [N*A, D]
    rows = tf.reshape(tf.gather(features, order.samples), [-1, dim])
    return Tiles(
        rows=cut(rows * tf.math.rsqrt(temperature)),
        labels=cut(tf.repeat(order.labels, num_anchor_views, axis=0), fill=-1),
        positions=cut(tf.reshape(positions, [-1]), fill=-1),
    )


def _positive_tiles(
    order: _ClassOrder, num_anchor_views: int, contrast: Tiles, num_views: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The contrast set's first tile with positives of each tile of anchors, and the first
    after them: int32 [T] each.
    """
    tile_rows = tf.shape(contrast.rows)[1]
    start = cut(tf.repeat(order.begin, num_anchor_views))[:, 0] * num_views // tile_rows
    end = tf.reduce_max(cut(tf.repeat(order.end, num_anchor_views)), axis=1)
    return start, -(-end * num_views // tile_rows)


def _of_rows(upstream: tf.Tensor, order: _ClassOrder, num_anchor_views: int) -> tf.Tensor:
    """Gradient of the samples' losses [N] -> of the anchor rows' losses [T, b]."""
    share = tf.gather(upstream, order.samples) / num_anchor_views
    return cut(tf.repeat(share, num_anchor_views))


def _of_samples(losses: tf.Tensor, order: _ClassOrder, features: tf.Tensor) -> tf.Tensor:
    """Losses of the anchor rows [T, b] -> their means over views [N], in batch order."""
    num_samples, num_views = tf.shape(features)[0], features.shape[1]
    losses = tf.reshape(join(losses, num_samples * num_views), [num_samples, num_views])
    return tf.gather(tf.reduce_mean(losses, axis=1), tf.math.invert_permutation(order.samples))


def _of_features(
    gradient: tf.Tensor, order: _ClassOrder, features: tf.Tensor, temperature: tf.Tensor
) -> tf.Tensor:
    """Gradient of the tiles' rows [T, b, D] -> of the features [N, A, D], in batch order."""
    num_rows = tf.size(order.samples) * features.shape[1]
    gradient = join(gradient, num_rows) * tf.math.rsqrt(temperature)
    gradient = tf.reshape(gradient, tf.shape(features))
    return tf.gather(gradient, tf.math.invert_permutation(order.samples))
