"""The passes for anchors that are the contrast set: one visit per pair of tiles.

The similarities are symmetric, so one exponential serves row i as the anchor and row j as the
anchor. The rows are normalised and the temperature is at least `MIN_TEMPERATURE`, so exp(s) needs
no maximum subtracted. The denominator is "all" or "only_negatives": an anchor's slopes are then
linear in exp(s). With summation "outside" and denominator "all", sums over classes replace the
pass over the positives.
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

PairTerms = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Slopes(NamedTuple):
    """Gradient of an anchor's loss with respect to s, as coefficients: float32 [T, b] each.

    negative exp(s) for a negative, positive exp(s) + constant for a positive; 0 where the anchor
    has no loss.
    """

    negative: tf.Tensor
    positive: tf.Tensor
    constant: tf.Tensor


def losses_and_slopes(
    tiles: Tiles, stop: tf.Tensor, *, summation: Summation, denominator: Denominator
) -> tuple[tf.Tensor, Slopes]:
    """Loss of each row, [T, b], and its slopes. Tiles j >= stop[i] hold no positive of tile i."""
    if _uses_class_sums(tiles, summation, denominator):
        total = _denominators(tiles)
        positive_sum, count = _similarity_to_positives(tiles)
    else:
        total, positive_sum, count = _masked_sums(tiles, stop, summation, denominator)
    is_defined = (count > 0) & (total > 0)
    total, positive_sum, count = (
        tf.where(is_defined, x, 1.0) for x in (total, positive_sum, count)
    )
    weight = tf.cast(is_defined, tf.float32)
    negative = weight / total
    positive = negative if denominator == "all" else tf.zeros_like(negative)
    if summation == "outside":
        losses = tf.math.log(total) - positive_sum / count
        slopes = Slopes(negative, positive, -weight / count)
    else:
        losses = tf.math.log(total) + tf.math.log(count) - tf.math.log(positive_sum)
        slopes = Slopes(negative, positive - weight / positive_sum, tf.zeros_like(weight))
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

    def negative_slope(i: tf.Tensor, j: tf.Tensor) -> tf.Tensor:
        # Rows i as anchors plus rows j as anchors.
        negative = slopes.negative[i][:, None] + slopes.negative[j][None, :]
        return negative * tf.exp(similarities(tiles, i, tiles, j))

    def negative_pair(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return products(negative_slope(i, j), i, j)

    def unmasked_tile(i: tf.Tensor) -> tf.Tensor:
        return products(_without_diagonal(negative_slope(i, i)), i, i)[0]

    def masked_pair(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        exponential = tf.exp(similarities(tiles, i, tiles, j))
        negative, positive, constant = (x[i][:, None] + x[j][None, :] for x in slopes)
        positives, negatives = positives_and_negatives(tiles, i, tiles, j)
        slope = tf.where(negatives, negative * exponential, 0.0)
        return products(tf.where(positives, positive * exponential + constant, slope), i, j)

    if _uses_class_sums(tiles, summation, denominator):
        exponential_part = _sum_over_pairs(unmasked_tile, negative_pair, tiles.rows)
        return exponential_part + _gradient_of_positives(tiles, slopes.constant)
    return _sum_over_pairs(
        lambda i: masked_pair(i, i)[0],
        negative_pair,
        tiles.rows,
        positive_pair=masked_pair,
        stop=stop,
    )


def _uses_class_sums(tiles: Tiles, summation: Summation, denominator: Denominator) -> bool:
    """Whether the positives' part comes from sums over classes, so that no tile needs masks."""
    return summation == "outside" and denominator == "all" and tiles.labels.shape.rank == 2


def _is_row(tiles: Tiles) -> tf.Tensor:
    """1 for rows, 0 for padding: float32 [T, b]."""
    return tf.cast(tiles.positions >= 0, tf.float32)


def _exponential_sums(
    exponential: tf.Tensor, is_row: tf.Tensor, i: tf.Tensor, j: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums of a tile [b, b'] without its padding, over columns and over rows: [b, 1], [b', 1]."""
    to_i = tf.linalg.matvec(exponential, is_row[j])
    to_j = tf.linalg.matvec(exponential, is_row[i], transpose_a=True)
    return to_i[:, None], to_j[:, None]


def _denominators(tiles: Tiles) -> tf.Tensor:
    """Sum of exp(s) over A: [T, b]."""
    is_row = _is_row(tiles)

    def pair(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _exponential_sums(tf.exp(similarities(tiles, i, tiles, j)), is_row, i, j)

    def same_tile(i: tf.Tensor) -> tf.Tensor:
        exponential = _without_diagonal(tf.exp(similarities(tiles, i, tiles, i)))
        return _exponential_sums(exponential, is_row, i, i)[0]

    return _sum_over_pairs(same_tile, pair, is_row[..., None])[..., 0]


def _masked_sums(
    tiles: Tiles, stop: tf.Tensor, summation: Summation, denominator: Denominator
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The denominator, the sum of s or exp(s) over P, and |P|: [T, b] each."""
    is_row = _is_row(tiles)

    def masked_pair(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
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

    def negative_pair(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        exponential = tf.exp(similarities(tiles, i, tiles, j))
        to_i, to_j = _exponential_sums(exponential, is_row, i, j)
        return tf.pad(to_i, [[0, 0], [0, 2]]), tf.pad(to_j, [[0, 0], [0, 2]])

    sums = _sum_over_pairs(
        lambda i: masked_pair(i, i)[0],
        negative_pair,
        tf.stack([is_row] * 3, axis=-1),
        positive_pair=masked_pair,
        stop=stop,
    )
    total, positive_sum, count = tf.unstack(sums, axis=-1)
    return total, positive_sum, count


def _similarity_to_positives(tiles: Tiles) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum of s_ip over P(i), and |P(i)|: float32 [T, b] each."""
    rows = tf.cast(tiles.rows, tf.float64)
    class_sums = _sum_over_class(tf.concat([rows, tf.ones_like(rows[..., :1])], axis=-1), tiles)
    positives = class_sums[..., :-1] - rows
    return (
        tf.cast(tf.reduce_sum(rows * positives, axis=-1), tf.float32),
        tf.cast(class_sums[..., -1] - 1, tf.float32),
    )


def _gradient_of_positives(tiles: Tiles, constant: tf.Tensor) -> tf.Tensor:
    """Gradient of the sum over i and p in P(i) of constant_i s_ip: [T, b, D]."""
    rows = tf.cast(tiles.rows, tf.float64)
    weighted = tf.cast(constant, tf.float64)[..., None] * rows
    as_contrast = _sum_over_class(weighted, tiles) - weighted
    as_anchor = (_sum_over_class(rows, tiles) - rows) * tf.cast(constant, tf.float64)[..., None]
    return _is_row(tiles)[..., None] * tf.cast(as_anchor + as_contrast, tf.float32)


def _sum_over_class(values: tf.Tensor, tiles: Tiles) -> tf.Tensor:
    """For each row the sum over the rows of its class, including itself.

    In float64, because the caller subtracts the row's own value: in float32 its rounding error
    would dominate where few positives remain.
    """
    flat = tf.reshape(values, [-1, values.shape[-1]])
    classes = tf.reshape(tiles.labels, [-1])
    sums = tf.math.unsorted_segment_sum(flat, classes, tf.size(classes))
    return tf.reshape(tf.gather(sums, tf.maximum(classes, 0)), tf.shape(values))


def _without_diagonal(tile: tf.Tensor) -> tf.Tensor:
    return tf.linalg.set_diag(tile, tf.zeros_like(tile[0]))


def _sum_over_pairs(
    same_tile: Callable[[tf.Tensor], tf.Tensor],
    negative_pair: PairTerms,
    like: tf.Tensor,
    *,
    positive_pair: PairTerms | None = None,
    stop: tf.Tensor | None = None,
) -> tf.Tensor:
    """Sum for every tile of its terms with itself and with all other tiles, shaped like `like`.

    Args:
      same_tile: i -> the terms of tile i with itself, [b, K].
      negative_pair: i, j -> the terms of their pair for tile i and for tile j, [b, K] each.
      like: [T, b, K], the shape of the result.
      positive_pair, stop: replaces `negative_pair` for i < j < stop[i].
    """
    tiles = like.shape[0] or tf.shape(like)[0]

    def add(pair: PairTerms, i: tf.Tensor) -> Callable[..., tuple[tf.Tensor, tf.TensorArray]]:
        def step(
            j: tf.Tensor, sum_i: tf.Tensor, sums: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.TensorArray]:
            to_i, to_j = pair(i, j)
            return sum_i + to_i, sums.write(j, sums.read(j) + to_j)

        return step

    def add_tile(i: tf.Tensor, sums: tf.TensorArray) -> tuple[tf.TensorArray]:
        sum_i, first_negative = same_tile(i), i + 1
        if positive_pair is not None and stop is not None:
            first_negative = tf.maximum(first_negative, stop[i])
            sum_i, sums = fold(i + 1, first_negative, add(positive_pair, i), sum_i, sums)
        sum_i, sums = fold(first_negative, tiles, add(negative_pair, i), sum_i, sums)
        return (sums.write(i, sums.read(i) + sum_i),)

    (sums,) = fold(0, tiles, add_tile, zeros_by_tile(like))
    return sums.stack()
