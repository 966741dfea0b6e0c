"""The passes over tiles of similarities: denominators, positives, gradient.

Each makes a tile of similarities, uses it for every anchor row in it, and drops it. Any anchors
may stand against any contrast set; `symmetric` has the cheaper passes of a set against itself.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from supcon_tf.losses.dense import Denominator, Summation
from supcon_tf.losses.streaming.tiles import (
    Tiles,
    fold,
    for_each_tile,
    num_tiles,
    positives_and_negatives,
    similarities,
    zeros_by_tile,
)

# The logarithm of an empty sum: a float32 that absorbs any logit added to it.
EMPTY = -1e30


class AnchorTerms(NamedTuple):
    """What the slopes of an anchor row need to know of all its similarities: [T, b] each."""

    log_denominator: tf.Tensor  # log of the sum of exp(s) over A ("all") or N
    log_positives: tf.Tensor  # log |P|, or for "inside" the log of the sum of ratios over P
    push: tf.Tensor  # the factor of a negative's share of the denominator
    weight: tf.Tensor  # gradient of the row's loss; 0 where the row has none

    def of_tile(self, i: tf.Tensor) -> "AnchorTerms":
        """Of tile i, to stand beside its similarities: [b, 1] each."""
        return AnchorTerms(*(term[i][:, None] for term in self))


def log_denominators(anchors: Tiles, contrast: Tiles, *, denominator: Denominator) -> tf.Tensor:
    """Log of the sum of exp(s) over A ("all") or N: [T, b], EMPTY where it has no entry."""

    def of_anchors(i: tf.Tensor) -> tf.Tensor:
        def add(j: tf.Tensor, largest: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            positives, negatives = positives_and_negatives(anchors, i, contrast, j)
            entries = positives | negatives if denominator == "all" else negatives
            s = tf.where(entries, similarities(anchors, i, contrast, j), EMPTY)
            new_largest = tf.maximum(largest, tf.reduce_max(s, axis=1))
            added = tf.reduce_sum(tf.exp(s - new_largest[:, None]), axis=1)
            return new_largest, total * tf.exp(largest - new_largest) + added

        zeros = tf.zeros_like(anchors.rows[i, :, 0])
        largest, total = fold(0, num_tiles(contrast), add, zeros + EMPTY, zeros)
        return largest + tf.math.log(total)

    return for_each_tile(anchors, of_anchors, tf.float32)


def losses_and_terms(
    anchors: Tiles,
    contrast: Tiles,
    log_denominator: tf.Tensor,
    start: tf.Tensor,
    stop: tf.Tensor,
    *,
    summation: Summation,
    denominator: Denominator,
) -> tuple[tf.Tensor, AnchorTerms]:
    """Loss of each anchor row, [T, b], and its terms, by a pass over the positives.

    All positives of tile i of the anchors are in tiles start[i] ... stop[i] - 1.
    """

    def of_anchors(i: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def add(
            j: tf.Tensor, count: tf.Tensor, largest: tf.Tensor, total: tf.Tensor, push: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            positives, _ = positives_and_negatives(anchors, i, contrast, j)
            s = similarities(anchors, i, contrast, j)
            log_ratio = _log_ratio(s, log_denominator[i][:, None], denominator)
            weight = tf.cast(positives, tf.float32)
            count += tf.reduce_sum(weight, axis=1)
            if summation == "outside":
                total += tf.reduce_sum(tf.where(positives, log_ratio, 0.0), axis=1)
            else:
                log_ratio = tf.where(positives, log_ratio, EMPTY)
                new_largest = tf.maximum(largest, tf.reduce_max(log_ratio, axis=1))
                weight *= tf.exp(log_ratio - new_largest[:, None])
                kept = tf.exp(largest - new_largest)
                total, push, largest = total * kept, push * kept, new_largest
                total += tf.reduce_sum(weight, axis=1)
            if denominator == "one_positive":
                # 1 - ratio: the part of D_ip that the negatives hold.
                push -= tf.reduce_sum(weight * tf.math.expm1(log_ratio), axis=1)
            return count, largest, total, push

        zeros = tf.zeros_like(log_denominator[i])
        count, largest, total, push = fold(
            start[i], stop[i], add, zeros, zeros + EMPTY, zeros, zeros
        )
        num_positives = tf.maximum(count, 1.0)
        if summation == "outside":
            loss = -total / num_positives
            log_positives = tf.math.log(num_positives)
            push /= num_positives
        else:
            # Where there are positives the largest of them alone makes this 1.
            total = tf.maximum(total, 1.0)
            log_positives = largest + tf.math.log(total)
            loss = tf.math.log(num_positives) - log_positives
            push /= total
        return count, loss, log_positives, push

    count, losses, log_positives, push = for_each_tile(anchors, of_anchors, (tf.float32,) * 4)
    is_defined = count > 0
    if denominator == "only_negatives":
        is_defined &= log_denominator > EMPTY / 2
    if denominator != "one_positive":
        push = tf.ones_like(push)
    weight = tf.cast(is_defined, tf.float32)
    terms = AnchorTerms(log_denominator, log_positives, push, weight)
    return tf.where(is_defined, losses, 0.0), terms


def slopes(
    s: tf.Tensor,
    positives: tf.Tensor,
    negatives: tf.Tensor,
    terms: AnchorTerms,
    *,
    summation: Summation,
    denominator: Denominator,
) -> tf.Tensor:
    """Gradient of the anchors' losses with respect to a tile of s, to which `terms` broadcast."""
    log_ratio = _log_ratio(s, terms.log_denominator, denominator)
    # No part exceeds the whole; the minimum only keeps pairs that the masks leave out finite.
    share = tf.exp(
        tf.minimum(log_ratio if summation == "inside" else 0.0, terms.log_positives)
        - terms.log_positives
    )
    softmax = tf.exp(tf.minimum(s - terms.log_denominator, 0.0))
    if denominator == "all":
        of_positives = softmax - share
    elif denominator == "one_positive":
        of_positives = share * tf.math.expm1(log_ratio)
    else:
        of_positives = -share * tf.ones_like(s)
    of_negatives = terms.push * softmax
    return terms.weight * tf.where(positives, of_positives, tf.where(negatives, of_negatives, 0.0))


def gradients(
    anchors: Tiles, contrast: Tiles, terms: AnchorTerms, **options: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients with respect to the rows of both: [T, b, D] and [T', b', D]."""

    def of_anchors(i: tf.Tensor, of_rows: Any, of_contrast: Any) -> tuple[Any, Any]:
        def add(j: tf.Tensor, of_row: tf.Tensor, of_contrast: Any) -> tuple[tf.Tensor, Any]:
            s = similarities(anchors, i, contrast, j)
            masks = positives_and_negatives(anchors, i, contrast, j)
            slope = slopes(s, *masks, terms.of_tile(i), **options)
            of_column = of_contrast.read(j) + tf.matmul(slope, anchors.rows[i], transpose_a=True)
            return of_row + tf.matmul(slope, contrast.rows[j]), of_contrast.write(j, of_column)

        of_row, of_contrast = fold(
            0, num_tiles(contrast), add, tf.zeros_like(anchors.rows[i]), of_contrast
        )
        return of_rows.write(i, of_row), of_contrast

    of_rows, of_contrast = fold(
        0,
        num_tiles(anchors),
        of_anchors,
        zeros_by_tile(anchors.rows),
        zeros_by_tile(contrast.rows),
    )
    return of_rows.stack(), of_contrast.stack()


def _log_ratio(s: tf.Tensor, log_denominator: tf.Tensor, denominator: Denominator) -> tf.Tensor:
    """log(exp(s_ip) / D_ip)."""
    if denominator == "one_positive":
        return tf.math.log_sigmoid(s - log_denominator)
    return s - log_denominator
