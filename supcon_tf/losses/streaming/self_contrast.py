"""The passes of a set against itself: each pair of tiles once, for both directions.

The rows are normalised and the temperature is not tiny, so exp(s) needs no maximum taken off, and
one exponential serves row i as the anchor and row j as the anchor. The denominators are "all" or
"only_negatives", with which an anchor's slopes are linear in exp(s). With summation "outside" and
denominator "all", the sums of the classes' rows stand for the pass over the positives.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from supcon_tf.losses.dense import Denominator, Summation
from supcon_tf.losses.streaming.tiles import (
    Tiles,
    fold,
    positives_and_negatives,
    similarities,
    zeros_by_tile,
)

# At 1 / temperature = 40 the sums of exp(s) and their inverses stay below 1e25.
MIN_TEMPERATURE = 0.025

Pair = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Slopes(NamedTuple):
    """Of an anchor's loss with respect to s: float32 [T, b] each, 0 where it has no loss."""

    negative: tf.Tensor  # times exp(s)
    positive: tf.Tensor  # times exp(s), plus
    constant: tf.Tensor


def losses_and_slopes(
    tiles: Tiles, stop: tf.Tensor, *, summation: Summation, denominator: Denominator
) -> tuple[tf.Tensor, Slopes]:
    """Loss of each row, [T, b], and its slopes. Tiles j >= stop[i] hold no positive of tile i."""
    is_row = tf.cast(tiles.positions >= 0, tf.float32)

    def totals(exponential: tf.Tensor, i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        to_i = tf.linalg.matvec(exponential, is_row[j])
        to_j = tf.linalg.matvec(exponential, is_row[i], transpose_a=True)
        return to_i[:, None], to_j[:, None]

    def of_negatives(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return totals(tf.exp(similarities(tiles, i, tiles, j)), i, j)

    def own(i: tf.Tensor) -> tf.Tensor:
        return totals(_without_diagonal(tf.exp(similarities(tiles, i, tiles, i))), i, i)[0]

    def with_masks(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        s = similarities(tiles, i, tiles, j)
        exponential = tf.exp(s)
        positives, negatives = positives_and_negatives(tiles, i, tiles, j)
        entries = positives | negatives if denominator == "all" else negatives
        summands = (
            tf.where(entries, exponential, 0.0),
            tf.where(positives, s if summation == "outside" else exponential, 0.0),
            tf.cast(positives, tf.float32),
        )
        to_i, to_j = (
            tf.stack([tf.reduce_sum(x, axis=axis) for x in summands], axis=1) for axis in (1, 0)
        )
        return to_i, to_j

    def of_negatives_alone(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        to_i, to_j = of_negatives(i, j)
        return tf.pad(to_i, [[0, 0], [0, 2]]), tf.pad(to_j, [[0, 0], [0, 2]])

    if _has_class_sums(tiles, summation, denominator):
        total = _sum_over_pairs(own, of_negatives, is_row[..., None])[..., 0]
        of_positives, count = _similarity_to_positives(tiles)
    else:
        sums = _sum_over_pairs(
            lambda i: with_masks(i, i)[0],
            of_negatives_alone,
            tf.stack([is_row] * 3, axis=-1),
            near=with_masks,
            stop=stop,
        )
        total, of_positives, count = tf.unstack(sums, axis=-1)
    is_defined = (count > 0) & (total > 0)
    total, of_positives, count = (
        tf.where(is_defined, x, 1.0) for x in (total, of_positives, count)
    )
    weight = tf.cast(is_defined, tf.float32)
    negative = weight / total
    in_denominator = negative if denominator == "all" else tf.zeros_like(negative)
    if summation == "outside":
        losses = tf.math.log(total) - of_positives / count
        slopes = Slopes(negative, in_denominator, -weight / count)
    else:
        losses = tf.math.log(total) + tf.math.log(count) - tf.math.log(of_positives)
        slopes = Slopes(negative, in_denominator - weight / of_positives, tf.zeros_like(weight))
    return weight * losses, slopes


def gradient(
    tiles: Tiles,
    stop: tf.Tensor,
    slopes: Slopes,
    *,
    summation: Summation,
    denominator: Denominator,
) -> tf.Tensor:
    """Gradient with respect to the rows, as anchors and as contrast set: [T, b, D]."""

    def products(slope: tf.Tensor, i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return (
            tf.matmul(slope, tiles.rows[j]),
            tf.matmul(slope, tiles.rows[i], transpose_a=True),
        )

    def slope_of_negatives(i: tf.Tensor, j: tf.Tensor) -> tf.Tensor:
        # As anchors of row i and as anchors of row j.
        negative = slopes.negative[i][:, None] + slopes.negative[j][None, :]
        return negative * tf.exp(similarities(tiles, i, tiles, j))

    def of_negatives(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return products(slope_of_negatives(i, j), i, j)

    def own(i: tf.Tensor) -> tf.Tensor:
        return products(_without_diagonal(slope_of_negatives(i, i)), i, i)[0]

    def with_masks(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        exponential = tf.exp(similarities(tiles, i, tiles, j))
        negative, positive, constant = (x[i][:, None] + x[j][None, :] for x in slopes)
        positives, negatives = positives_and_negatives(tiles, i, tiles, j)
        slope = tf.where(negatives, negative * exponential, 0.0)
        return products(tf.where(positives, positive * exponential + constant, slope), i, j)

    if _has_class_sums(tiles, summation, denominator):
        of_all = _sum_over_pairs(own, of_negatives, tiles.rows)
        return of_all + _gradient_of_positives(tiles, slopes.constant)
    return _sum_over_pairs(
        lambda i: with_masks(i, i)[0], of_negatives, tiles.rows, near=with_masks, stop=stop
    )


def _has_class_sums(tiles: Tiles, summation: Summation, denominator: Denominator) -> bool:
    """Whether positives enter by the sums of their classes, so that no tile needs masks."""
    return summation == "outside" and denominator == "all" and tiles.labels.shape.rank == 2


def _similarity_to_positives(tiles: Tiles) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum of s_ip over P(i), and |P(i)|: float32 [T, b] each."""
    rows = tf.cast(tiles.rows, tf.float64)
    of_class = _sum_over_class(tf.concat([rows, tf.ones_like(rows[..., :1])], axis=-1), tiles)
    others = of_class[..., :-1] - rows
    return (
        tf.cast(tf.reduce_sum(rows * others, axis=-1), tf.float32),
        tf.cast(of_class[..., -1] - 1, tf.float32),
    )


def _gradient_of_positives(tiles: Tiles, constant: tf.Tensor) -> tf.Tensor:
    """Gradient of the sum over i and p in P(i) of constant_i s_ip: [T, b, D]."""
    rows = tf.cast(tiles.rows, tf.float64)
    weighted = tf.cast(constant, tf.float64)[..., None] * rows
    as_contrast = _sum_over_class(weighted, tiles) - weighted
    as_anchor = (_sum_over_class(rows, tiles) - rows) * tf.cast(constant, tf.float64)[..., None]
    is_row = tf.cast(tiles.positions >= 0, tf.float32)[..., None]
    return is_row * tf.cast(as_anchor + as_contrast, tf.float32)


def _sum_over_class(values: tf.Tensor, tiles: Tiles) -> tf.Tensor:
    """For each row the sum over the rows of its class, itself included.

    In float64, because the row's own value is taken off again, which in float32 would leave its
    rounding where few positives remain.
    """
    flat = tf.reshape(values, [-1, values.shape[-1]])
    classes = tf.reshape(tiles.labels, [-1])
    sums = tf.math.unsorted_segment_sum(flat, classes, tf.size(classes))
    return tf.reshape(tf.gather(sums, tf.maximum(classes, 0)), tf.shape(values))


def _without_diagonal(tile: tf.Tensor) -> tf.Tensor:
    return tf.linalg.set_diag(tile, tf.zeros_like(tile[0]))


def _sum_over_pairs(
    own: Callable[[tf.Tensor], tf.Tensor],
    far: Pair,
    like: tf.Tensor,
    *,
    near: Pair | None = None,
    stop: tf.Tensor | None = None,
) -> tf.Tensor:
    """What every tile receives from itself and from all pairs of tiles i < j.

    Args:
      own: i -> what tile i receives from itself, [b, K].
      far: i, j -> what tile i and what tile j receive from their pair, [b, K] each.
      like: [T, b, K], the shape of the result.
      near, stop: the pairs with j < stop[i] go to `near` instead.
    """
    tiles = like.shape[0] or tf.shape(like)[0]

    def adding(pair: Pair, i: tf.Tensor) -> Callable[..., tuple[tf.Tensor, tf.TensorArray]]:
        def step(
            j: tf.Tensor, to_i: tf.Tensor, received: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.TensorArray]:
            more, to_j = pair(i, j)
            return to_i + more, received.write(j, received.read(j) + to_j)

        return step

    def of_tile(i: tf.Tensor, received: tf.TensorArray) -> tuple[tf.TensorArray]:
        to_i, first_far = own(i), i + 1
        if near is not None and stop is not None:
            first_far = tf.maximum(first_far, stop[i])
            to_i, received = fold(i + 1, first_far, adding(near, i), to_i, received)
        to_i, received = fold(first_far, tiles, adding(far, i), to_i, received)
        return (received.write(i, received.read(i) + to_i),)

    (received,) = fold(0, tiles, of_tile, zeros_by_tile(like))
    return received.stack()
