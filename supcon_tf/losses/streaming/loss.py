"""SupCon in linear memory: tiles of similarities, computed again in the backward pass.

docs/loss.md has the algebra, the cost and the measurements.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from supcon_tf.losses.dense import Denominator, Summation
from supcon_tf.losses.multiview import class_ranges
from supcon_tf.losses.streaming import general, self_contrast
from supcon_tf.losses.streaming.tiles import Tiles, merge_tiles, split_into_tiles


def streaming_supcon(
    labels: tf.Tensor,
    anchors: tf.Tensor,
    contrast_labels: tf.Tensor,
    contrast: tf.Tensor,
    first_row: tf.Tensor,
    *,
    temperature: Any,
    summation: Summation,
    denominator: Denominator,
    unit_rows: bool,
) -> tf.Tensor:
    """SupCon of anchors with a contrast set, one tile of similarities at a time.

    Args:
      labels, anchors, contrast_labels, contrast, first_row, summation, denominator: as in
        `dense_supcon`.
      temperature: a number, or a tensor, which then gets a gradient too.
      unit_rows: whether all rows have length one.

    Returns:
      float32 [N], not scaled by the temperature.
    """
    options: dict[str, Any] = {"summation": summation, "denominator": denominator}
    self_contrasting = is_self_contrast(
        anchors,
        contrast,
        temperature=temperature,
        denominator=denominator,
        unit_rows=unit_rows,
    )
    temperature = tf.convert_to_tensor(temperature, tf.float32)
    if self_contrasting:
        return _self_contrast_losses(labels, contrast, temperature, **options)
    return _general_losses(
        labels, anchors, contrast_labels, contrast, first_row, temperature, **options
    )


def is_self_contrast(
    anchors: tf.Tensor,
    contrast: tf.Tensor,
    *,
    temperature: Any,
    denominator: Denominator,
    unit_rows: bool,
) -> bool:
    """Whether `self_contrast` applies; it costs half as much as `general`."""
    return (
        anchors is contrast
        and unit_rows
        and denominator != "one_positive"
        and isinstance(temperature, int | float)
        and temperature >= self_contrast.MIN_TEMPERATURE
    )


# A tf.function, because an eager gradient tape would keep every tile.
@tf.function(autograph=False)
def _self_contrast_losses(
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
            row_upstream = _row_upstream(upstream, order, num_views)
            weighted = self_contrast.Slopes(*(row_upstream * slope for slope in slopes))
            gradient = self_contrast.gradient(tiles, stop, weighted, **options)
            return _feature_gradient(gradient, order, features, temperature)

        return _sample_losses(losses, order, features), gradient_of

    return losses_of(features)


@tf.function(autograph=False)
def _general_losses(
    labels: tf.Tensor,
    anchors: tf.Tensor,
    contrast_labels: tf.Tensor,
    contrast: tf.Tensor,
    first_row: tf.Tensor,
    temperature: tf.Tensor,
    **options: Any,
) -> tf.Tensor:
    num_views, num_anchor_views = contrast.shape[1], anchors.shape[1]
    order = _class_order(labels, contrast_labels)
    contrast_order = _class_order(contrast_labels, contrast_labels)

    @tf.custom_gradient
    def losses_of(anchors: tf.Tensor, contrast: tf.Tensor, temperature: tf.Tensor) -> Any:
        rows = _tiles(anchors, order, first_row, num_views, temperature)
        columns = _tiles(contrast, contrast_order, 0, num_views, temperature)
        start, stop = _positive_tiles(order, num_anchor_views, columns, num_views)
        logs = general.log_denominators(rows, columns, denominator=options["denominator"])
        losses, terms = general.losses_and_terms(rows, columns, logs, start, stop, **options)

        def gradients_of(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            row_upstream = _row_upstream(upstream, order, num_anchor_views)
            weighted = terms._replace(weight=row_upstream * terms.weight)
            row_gradient, column_gradient = general.gradients(rows, columns, weighted, **options)
            # Rows and columns both carry 1 / sqrt(temperature), and s is their product.
            temperature_gradient = -tf.reduce_sum(row_gradient * rows.rows) / temperature
            return (
                _feature_gradient(row_gradient, order, anchors, temperature),
                _feature_gradient(column_gradient, contrast_order, contrast, temperature),
                temperature_gradient,
            )

        return _sample_losses(losses, order, anchors), gradients_of

    return losses_of(anchors, contrast, temperature)


class _ClassOrder(NamedTuple):
    """Samples ordered by class, so that the positives of a tile lie in few tiles."""

    samples: tf.Tensor  # int32 [N], a permutation
    labels: tf.Tensor  # in that order: int32 [N] class numbers, or float32 [N, C]
    begin: tf.Tensor  # int32 [N], where the class begins in the ordered contrast set
    end: tf.Tensor  # int32 [N]


def _class_order(labels: tf.Tensor, contrast_labels: tf.Tensor) -> _ClassOrder:
    """Sorts class numbers; multi-hot rows keep their order and may have positives anywhere."""
    if labels.shape.rank == 1:
        begin, end = class_ranges(labels, contrast_labels)
        samples = tf.argsort(begin)
        begin = tf.gather(begin, samples)
        return _ClassOrder(samples, begin, begin, tf.gather(end, samples))
    samples = tf.range(tf.shape(labels)[0])
    end = tf.fill(tf.shape(samples), tf.shape(contrast_labels)[0])
    return _ClassOrder(samples, labels, tf.zeros_like(samples), end)


def _tiles(
    features: tf.Tensor,
    order: _ClassOrder,
    first_row: Any,
    num_views: int,
    temperature: tf.Tensor,
) -> Tiles:
    """[N, A, D] -> tiles of rows in class order."""
    num_anchor_views, dim = features.shape[1:]
    positions = (first_row + order.samples)[:, None] * num_views + tf.range(num_anchor_views)
    # [N, A, D] -> [N*A, D]
    rows = tf.reshape(tf.gather(features, order.samples), [-1, dim])
    return Tiles(
        rows=split_into_tiles(rows * tf.math.rsqrt(temperature)),
        labels=split_into_tiles(tf.repeat(order.labels, num_anchor_views, axis=0), padding=-1),
        positions=split_into_tiles(tf.reshape(positions, [-1]), padding=-1),
    )


def _positive_tiles(
    order: _ClassOrder, num_anchor_views: int, contrast: Tiles, num_views: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """For each anchor tile the range start ... stop - 1 of contrast tiles with its positives.

    int32 [T] each.
    """
    tile_rows = tf.shape(contrast.rows)[1]
    begin = split_into_tiles(tf.repeat(order.begin, num_anchor_views))[:, 0]
    end = tf.reduce_max(split_into_tiles(tf.repeat(order.end, num_anchor_views)), axis=1)
    return begin * num_views // tile_rows, -(-end * num_views // tile_rows)


def _row_upstream(upstream: tf.Tensor, order: _ClassOrder, num_anchor_views: int) -> tf.Tensor:
    """Upstream gradient of the samples' losses [N] -> of the anchor rows' losses [T, b]."""
    share = tf.gather(upstream, order.samples) / num_anchor_views
    return split_into_tiles(tf.repeat(share, num_anchor_views))


def _sample_losses(losses: tf.Tensor, order: _ClassOrder, features: tf.Tensor) -> tf.Tensor:
    """Losses of the anchor rows [T, b] -> their means over views [N], in batch order."""
    num_samples, num_views = tf.shape(features)[0], features.shape[1]
    losses = tf.reshape(merge_tiles(losses, num_samples * num_views), [num_samples, num_views])
    return tf.gather(tf.reduce_mean(losses, axis=1), tf.math.invert_permutation(order.samples))


def _feature_gradient(
    gradient: tf.Tensor, order: _ClassOrder, features: tf.Tensor, temperature: tf.Tensor
) -> tf.Tensor:
    """Gradient of the tiles' rows [T, b, D] -> of the features [N, A, D], in batch order."""
    num_rows = tf.size(order.samples) * features.shape[1]
    gradient = merge_tiles(gradient, num_rows) * tf.math.rsqrt(temperature)
    gradient = tf.reshape(gradient, tf.shape(features))
    return tf.gather(gradient, tf.math.invert_permutation(order.samples))
