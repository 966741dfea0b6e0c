"""The general passes over all tiles: any anchors with any contrast set.

`self_contrast` is cheaper where both are the same.
"""

from typing import Any

import tensorflow as tf

from supcon_tf.losses.dense import LOG_ZERO, Entries
from supcon_tf.losses.streaming.tiles import (
    Tiles,
    fold,
    is_other_row,
    map_tiles,
    num_tiles,
    shares_label,
    similarities,
    zeros_by_tile,
)


# A tf.function, because an eager loop would run one operation at a time.
@tf.function(autograph=False)
def log_sums(
    anchors: Tiles,
    contrast: Tiles,
    log_weights: tf.Tensor | None,
    entries: Entries,
) -> tf.Tensor:
    """Log of the sum over A or N of exp(s_ij + w_j), LOG_ZERO if empty: [T, b].

    Args:
      anchors, contrast: tiles.
      log_weights: w of the contrast rows, [T', b'], without a gradient; LOG_ZERO for padding. None
        for zeros.
      entries: the rows in the sum.
    """

    if log_weights is None:
        log_weights = tf.where(contrast.positions >= 0, 0.0, LOG_ZERO)

    def terms(anchors: Tiles, contrast: Tiles, i: tf.Tensor, j: tf.Tensor) -> tf.Tensor:
        mask = is_other_row(anchors, i, contrast, j)
        if entries == "negatives":
            mask &= ~shares_label(anchors, i, contrast, j)
        s = similarities(anchors, i, contrast, j) + log_weights[j]
        return tf.where(mask, s, LOG_ZERO)

    @tf.custom_gradient
    def sums_of(anchor_rows: tf.Tensor, contrast_rows: tf.Tensor) -> Any:
        tiles = anchors._replace(rows=anchor_rows), contrast._replace(rows=contrast_rows)

        def anchor_tile(i: tf.Tensor) -> tf.Tensor:
            def add(j: tf.Tensor, largest: tf.Tensor, total: tf.Tensor) -> Any:
                s = terms(*tiles, i, j)
                new_largest = tf.maximum(largest, tf.reduce_max(s, axis=1))
                added = tf.reduce_sum(tf.exp(s - new_largest[:, None]), axis=1)
                return new_largest, total * tf.exp(largest - new_largest) + added

            zeros = tf.zeros_like(anchor_rows[i, :, 0])
            largest, total = fold(0, num_tiles(contrast), add, zeros + LOG_ZERO, zeros)
            return largest + tf.math.log(total)

        sums = map_tiles(anchors, anchor_tile, tf.float32)

        def gradients_of(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def slopes(i: tf.Tensor, j: tf.Tensor) -> tf.Tensor:
                s = terms(*tiles, i, j)
                # At most 1; the minimum keeps masked-out pairs finite.
                softmax = tf.exp(tf.minimum(s - sums[i][:, None], 0.0))
                return tf.where(s > LOG_ZERO / 2, upstream[i][:, None] * softmax, 0.0)

            return gradients(*tiles, slopes)

        return sums, gradients_of

    return sums_of(anchors.rows, contrast.rows)


@tf.function(autograph=False)
def largest(anchors: Tiles, contrast: Tiles) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest s_ij over P and over N, LOG_ZERO if empty: [T, b] each."""

    def anchor_tile(i: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def add(j: tf.Tensor, *found: tf.Tensor) -> tuple[tf.Tensor, ...]:
            s = similarities(anchors, i, contrast, j)
            shares = shares_label(anchors, i, contrast, j)
            in_set = is_other_row(anchors, i, contrast, j) & (contrast.positions[j] >= 0)
            return tuple(
                tf.maximum(old, tf.reduce_max(tf.where(mask & in_set, s, LOG_ZERO), axis=1))
                for old, mask in zip(found, (shares, ~shares), strict=True)
            )

        empty = tf.fill(tf.shape(anchors.rows[i, :, 0]), LOG_ZERO)
        return fold(0, num_tiles(contrast), add, empty, empty)

    to_positive, to_negative = map_tiles(anchors, anchor_tile, (tf.float32, tf.float32))
    return to_positive, to_negative


def gradients(
    anchors: Tiles, contrast: Tiles, slopes: Any, start: Any = None, stop: Any = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients with respect to the anchor and the contrast rows: [T, b, D] and [T', b', D].

    Args:
      anchors, contrast: tiles.
      slopes: i, j -> the gradient with respect to s of anchor tile i and contrast tile j, [b, b'].
      start, stop: int32 [T]; tile i has slopes in contrast tiles start[i] ... stop[i] - 1 only.
        None for all tiles.
    """

    def anchor_tile(
        i: tf.Tensor, anchor_gradients: tf.TensorArray, contrast_gradients: tf.TensorArray
    ) -> tuple[tf.TensorArray, tf.TensorArray]:
        def add(
            j: tf.Tensor, anchor_gradient: tf.Tensor, contrast_gradients: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.TensorArray]:
            slope = slopes(i, j)
            to_contrast = tf.matmul(slope, anchors.rows[i], transpose_a=True)
            return (
                anchor_gradient + tf.matmul(slope, contrast.rows[j]),
                contrast_gradients.write(j, contrast_gradients.read(j) + to_contrast),
            )

        anchor_gradient, contrast_gradients = fold(
            0 if start is None else start[i],
            num_tiles(contrast) if stop is None else stop[i],
            add,
            tf.zeros_like(anchors.rows[i]),
            contrast_gradients,
        )
        return anchor_gradients.write(i, anchor_gradient), contrast_gradients

    anchor_gradients, contrast_gradients = fold(
        0,
        num_tiles(anchors),
        anchor_tile,
        zeros_by_tile(anchors.rows),
        zeros_by_tile(contrast.rows),
    )
    return anchor_gradients.stack(), contrast_gradients.stack()
