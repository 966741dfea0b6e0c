"""The passes over the positives only: with rows ordered by class, they lie in few tiles."""

from typing import Any, Literal

import tensorflow as tf

from supcon_tf.losses.dense import LOG_ZERO
from supcon_tf.losses.streaming.general import gradients
from supcon_tf.losses.streaming.tiles import (
    Tiles,
    fold,
    is_other_row,
    map_tiles,
    shares_label,
    similarities,
)


@tf.function(autograph=False)
def sums(
    anchors: Tiles,
    contrast: Tiles,
    log_negatives: tf.Tensor | None,
    start: tf.Tensor,
    stop: tf.Tensor,
    reduction: Literal["mean", "log_sum"],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean over P of t, 0 if empty, or log of the sum of exp(t), LOG_ZERO if empty; and |P|.

    Args:
      anchors, contrast: tiles.
      log_negatives: n, [T, b], for t_ip = log_sigmoid(s_ip - n_i); None for t_ip = s_ip.
      start, stop: int32 [T]; all positives of anchor tile i are in contrast tiles
        start[i] ... stop[i] - 1.
      reduction: "mean" or "log_sum".

    Returns:
      float32 [T, b] each; only the first has a gradient.
    """

    def mask_of(i: tf.Tensor, j: tf.Tensor) -> tf.Tensor:
        # Padding has the position -1; rows of labels share none with it.
        is_row = contrast.positions[j] >= 0
        return (
            shares_label(anchors, i, contrast, j) & is_other_row(anchors, i, contrast, j) & is_row
        )

    @tf.custom_gradient
    def sums_of(anchor_rows: tf.Tensor, contrast_rows: tf.Tensor, *n: tf.Tensor) -> Any:
        tiles = anchors._replace(rows=anchor_rows), contrast._replace(rows=contrast_rows)

        def terms(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """t, and the slope dt / ds."""
            s = similarities(tiles[0], i, tiles[1], j)
            if not n:
                return s, tf.ones_like(s)
            s -= n[0][i][:, None]
            return tf.math.log_sigmoid(s), tf.sigmoid(-s)

        def anchor_tile(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def add(j: tf.Tensor, count: tf.Tensor, largest: tf.Tensor, total: tf.Tensor) -> Any:
                mask, (t, _) = mask_of(i, j), terms(i, j)
                count += tf.reduce_sum(tf.cast(mask, tf.float32), axis=1)
                if reduction == "mean":
                    return count, largest, total + tf.reduce_sum(tf.where(mask, t, 0.0), axis=1)
                t = tf.where(mask, t, LOG_ZERO)
                new_largest = tf.maximum(largest, tf.reduce_max(t, axis=1))
                added = tf.reduce_sum(tf.exp(t - new_largest[:, None]), axis=1)
                return count, new_largest, total * tf.exp(largest - new_largest) + added

            zeros = tf.zeros_like(anchor_rows[i, :, 0])
            count, largest, total = fold(start[i], stop[i], add, zeros, zeros + LOG_ZERO, zeros)
            if reduction == "mean":
                return total / tf.maximum(count, 1.0), count
            return largest + tf.math.log(tf.maximum(total, 1.0)), count

        values, counts = map_tiles(anchors, anchor_tile, (tf.float32, tf.float32))

        def gradients_of(upstream: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            def slopes(i: tf.Tensor, j: tf.Tensor) -> tf.Tensor:
                t, slope = terms(i, j)
                if reduction == "mean":
                    weight = 1.0 / tf.maximum(counts[i], 1.0)[:, None]
                else:
                    weight = tf.exp(tf.minimum(t - values[i][:, None], 0.0))
                return tf.where(mask_of(i, j), upstream[i][:, None] * weight * slope, 0.0)

            if not n:
                return gradients(*tiles, slopes, start, stop)
            # A column of ones in the contrast set gives the sums of an anchor's slopes too.
            zeros, ones = tf.zeros_like(anchor_rows[..., 0]), tf.ones_like(contrast_rows[..., 0])
            columns = tiles[0].with_column(zeros), tiles[1].with_column(ones)
            to_anchors, to_contrast = gradients(*columns, slopes, start, stop)
            return to_anchors[..., :-1], to_contrast[..., :-1], -to_anchors[..., -1]

        return (values, counts), gradients_of

    n = () if log_negatives is None else (log_negatives,)
    return sums_of(anchors.rows, contrast.rows, *n)
