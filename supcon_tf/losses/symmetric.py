"""The passes of a set against itself: each pair of blocks once, for both directions.

The rows are normalised and the temperature is not tiny, so exp(s) needs no maximum taken off, and
one exponential serves row i as the anchor and row j as the anchor. The denominators are "all" or
"only_negatives", with which an anchor's slopes are linear in exp(s). With summation "outside" and
denominator "all", the sums of the classes' rows stand for the pass over the positives.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from supcon_tf.losses.blocks import (
    Blocks,
    fold,
    num_blocks,
    positives_and_negatives,
    similarities,
    zeros_by_block,
)
from supcon_tf.losses.dense import Denominator, Summation

# At 1 / temperature = 40 the sums of exp(s) and their inverses stay below 1e25.
MIN_TEMPERATURE = 0.025

Pair = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Slopes(NamedTuple):
    """Of an anchor's loss with respect to s: float32 [T, b] each, 0 where it has no loss."""

    negative: tf.Tensor  # times exp(s)
    positive: tf.Tensor  # times exp(s), plus
    constant: tf.Tensor


def losses_and_slopes(
    blocks: Blocks,
    stop: tf.Tensor,
    *,
    summation: Summation,
    denominator: Denominator,
) -> tuple[tf.Tensor, Slopes]:
    """Loss of each row, [T, b], and its slopes. Blocks j >= stop[i] hold no positive of block i."""
    is_row = tf.cast(blocks.places >= 0, tf.float32)

    def totals(exponential: tf.Tensor, i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        to_i = tf.linalg.matvec(exponential, is_row[j])
        to_j = tf.linalg.matvec(exponential, is_row[i], transpose_a=True)
        return to_i[:, None], to_j[None]

    def without_masks(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return totals(tf.exp(similarities(blocks, i, blocks, j)), i, j)

    def own_without_masks(i: tf.Tensor) -> tf.Tensor:
        return totals(_without_diagonal(tf.exp(similarities(blocks, i, blocks, i))), i, i)[0]

    def with_masks(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        s = similarities(blocks, i, blocks, j)
        exponential = tf.exp(s)
        positives, negatives = positives_and_negatives(blocks, i, blocks, j)
        entries = positives | negatives if denominator == "all" else negatives
        summands = (
            tf.where(entries, exponential, 0.0),
            tf.where(positives, s if summation == "outside" else exponential, 0.0),
            tf.cast(positives, tf.float32),
        )
        to_i = tf.stack([tf.reduce_sum(x, axis=1) for x in summands], axis=1)
        return to_i, tf.stack([tf.reduce_sum(x, axis=0) for x in summands], axis=0)

    def of_others(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        to_i, to_j = without_masks(i, j)
        return tf.pad(to_i, [[0, 0], [0, 2]]), tf.pad(to_j, [[0, 2], [0, 0]])

    if has_class_sums(blocks, summation=summation, denominator=denominator):
        sums = _sum_over_pairs(
            own_without_masks, without_masks, without_masks, blocks, stop, is_row[:, None]
        )
        total = sums[:, 0]
        of_positives, count = _similarity_to_positives(blocks)
    else:
        sums = _sum_over_pairs(
            lambda i: with_masks(i, i)[0],
            with_masks,
            of_others,
            blocks,
            stop,
            tf.stack([is_row] * 3, axis=1),
        )
        # [T, 3, b] -> [T, b] each
        total, of_positives, count = tf.unstack(sums, axis=1)
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
    blocks: Blocks,
    stop: tf.Tensor,
    slopes: Slopes,
    *,
    summation: Summation,
    denominator: Denominator,
) -> tf.Tensor:
    """Gradient with respect to the rows, as anchors and as contrast set: [T, b, D]."""
    # A product with a transposed block takes twice the time of one with transposed rows.
    columns = tf.transpose(blocks.rows, [0, 2, 1])

    def slope(i: tf.Tensor, j: tf.Tensor) -> tf.Tensor:
        # As anchors of row i and as anchors of row j.
        negative = slopes.negative[i][:, None] + slopes.negative[j][None, :]
        return negative * tf.exp(similarities(blocks, i, blocks, j))

    def with_masks(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        exponential = tf.exp(similarities(blocks, i, blocks, j))
        negative, positive, constant = (x[i][:, None] + x[j][None, :] for x in slopes)
        positives, negatives = positives_and_negatives(blocks, i, blocks, j)
        of_negatives = tf.where(negatives, negative * exponential, 0.0)
        return products(tf.where(positives, positive * exponential + constant, of_negatives), i, j)

    def products(slope: tf.Tensor, i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.matmul(slope, blocks.rows[j]), tf.matmul(columns[i], slope)

    def without_masks(i: tf.Tensor, j: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return products(slope(i, j), i, j)

    zeros = tf.zeros_like(columns)
    if has_class_sums(blocks, summation=summation, denominator=denominator):
        received = _sum_over_pairs(
            lambda i: products(_without_diagonal(slope(i, i)), i, i)[0],
            without_masks,
            without_masks,
            blocks,
            stop,
            zeros,
        )
        return tf.transpose(received, [0, 2, 1]) + _gradient_of_positives(blocks, slopes.constant)
    received = _sum_over_pairs(
        lambda i: with_masks(i, i)[0], with_masks, without_masks, blocks, stop, zeros
    )
    return tf.transpose(received, [0, 2, 1])


def has_class_sums(blocks: Blocks, *, summation: Summation, denominator: Denominator) -> bool:
    """Whether positives enter by the sums of their classes, so that no block needs masks."""
    return summation == "outside" and denominator == "all" and blocks.labels.shape.rank == 2


def _similarity_to_positives(blocks: Blocks) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum of s_ip over P(i), and |P(i)|: float32 [T, b] each."""
    rows = tf.cast(blocks.rows, tf.float64)
    of_class = _sum_over_class(tf.concat([rows, tf.ones_like(rows[..., :1])], axis=-1), blocks)
    others = of_class[..., :-1] - rows
    return (
        tf.cast(tf.reduce_sum(rows * others, axis=-1), tf.float32),
        tf.cast(of_class[..., -1] - 1, tf.float32),
    )


def _gradient_of_positives(blocks: Blocks, constant: tf.Tensor) -> tf.Tensor:
    """Gradient of the sum over i and p in P(i) of constant_i s_ip: [T, b, D]."""
    rows = tf.cast(blocks.rows, tf.float64)
    weighted = tf.cast(constant, tf.float64)[..., None] * rows
    as_contrast = _sum_over_class(weighted, blocks) - weighted
    as_anchor = (_sum_over_class(rows, blocks) - rows) * tf.cast(constant, tf.float64)[..., None]
    is_row = tf.cast(blocks.places >= 0, tf.float32)[..., None]
    return is_row * tf.cast(as_anchor + as_contrast, tf.float32)


def _sum_over_class(values: tf.Tensor, blocks: Blocks) -> tf.Tensor:
    """For each row the sum over the rows of its class, itself included.

    In float64, because the row's own value is taken off again, which in float32 would leave its
    rounding where few positives remain.
    """
    flat = tf.reshape(values, [-1, values.shape[-1]])
    classes = tf.reshape(blocks.labels, [-1])
    sums = tf.math.unsorted_segment_sum(flat, classes, tf.size(classes))
    return tf.reshape(tf.gather(sums, tf.maximum(classes, 0)), tf.shape(values))


def _without_diagonal(block: tf.Tensor) -> tf.Tensor:
    return tf.linalg.set_diag(block, tf.zeros_like(block[0]))


def _sum_over_pairs(
    own: Callable[[tf.Tensor], tf.Tensor],
    near: Pair,
    far: Pair,
    blocks: Blocks,
    stop: tf.Tensor,
    like: tf.Tensor,
) -> tf.Tensor:
    """What every block receives from itself and from all pairs of blocks i < j, shaped `like`.

    near(i, j), up to stop[i], and far(i, j) from there on are what block i receives and what
    block j receives; the former and own(i) are transposed.
    """

    def adding(pair: Pair) -> Callable[..., tuple[tf.Tensor, tf.TensorArray]]:
        def step(
            i: tf.Tensor, j: tf.Tensor, to_i: tf.Tensor, received: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.TensorArray]:
            more, to_j = pair(i, j)
            return to_i + more, received.write(j, received.read(j) + to_j)

        return step

    def of_block(i: tf.Tensor, received: tf.TensorArray) -> tuple[tf.TensorArray]:
        state = own(i), received
        last_near = tf.maximum(i + 1, stop[i])
        state = fold(i + 1, last_near, functools.partial(adding(near), i), *state)
        state = fold(last_near, num_blocks(blocks), functools.partial(adding(far), i), *state)
        to_i, received = state
        return (received.write(i, received.read(i) + tf.transpose(to_i)),)

    (received,) = fold(0, num_blocks(blocks), of_block, zeros_by_block(tf.zeros_like(like)))
    return received.stack()
