"""The general passes over tiles: denominators, positives and gradient.

They take any anchors and any contrast set. `self_contrast` is cheaper where both are the same.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from supcon_tf.losses.dense import Denominator, Summation
from supcon_tf.losses.streaming.tiles import (
    Tiles,
    fold,
    map_tiles,
    num_tiles,
    positives_and_negatives,
    similarities,
    zeros_by_tile,
)

# The logarithm of an empty sum: adding any logit to it in float32 leaves it unchanged.
LOG_ZERO = -1e30


class AnchorTerms(NamedTuple):
    """Sums over an anchor row's similarities that its gradient needs: [T, b] each."""

    log_denominator: tf.Tensor  # log of the sum of exp(s) over A ("all") or N
    log_positives: tf.Tensor  # log |P|, or for "inside" the log of the sum of ratios over P
    negative_factor: tf.Tensor  # multiplies exp(s) / D in the gradient of a negative
    weight: tf.Tensor  # gradient of the row's loss; 0 where the row has none

    def tile(self, i: tf.Tensor) -> "AnchorTerms":
        """The terms of tile i, [b, 1] each, to broadcast over its similarities."""
        return AnchorTerms(*(term[i][:, None] for term in self))


def log_denominators(anchors: Tiles, contrast: Tiles, *, denominator: Denominator) -> tf.Tensor:
    """Log of the sum of exp(s) over A ("all") or N: [T, b], LOG_ZERO for an empty sum."""

    def anchor_tile(i: tf.Tensor) -> tf.Tensor:
        def add(j: tf.Tensor, largest: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            positives, negatives = positives_and_negatives(anchors, i, contrast, j)
            entries = positives | negatives if denominator == "all" else negatives
            s = tf.where(entries, similarities(anchors, i, contrast, j), LOG_ZERO)
            new_largest = tf.maximum(largest, tf.reduce_max(s, axis=1))
            added = tf.reduce_sum(tf.exp(s - new_largest[:, None]), axis=1)
            return new_largest, total * tf.exp(largest - new_largest) + added

        zeros = tf.zeros_like(anchors.rows[i, :, 0])
        largest, total = fold(0, num_tiles(contrast), add, zeros + LOG_ZERO, zeros)
        return largest + tf.math.log(total)

    return map_tiles(anchors, anchor_tile, tf.float32)


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
    """Loss of each anchor row, [T, b], and its terms, in one pass over the positives.

    All positives of anchor tile i are in contrast tiles start[i] ... stop[i] - 1.
    """

    def anchor_tile(i: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def add(
            j: tf.Tensor,
            count: tf.Tensor,
            largest: tf.Tensor,
            total: tf.Tensor,
            negative_factor: tf.Tensor,
        ) -> tuple[tf.Tensor, ...]:
            positives, _ = positives_and_negatives(anchors, i, contrast, j)
            s = similarities(anchors, i, contrast, j)
            log_ratio = _log_ratio(s, log_denominator[i][:, None], denominator)
            weight = tf.cast(positives, tf.float32)
            count += tf.reduce_sum(weight, axis=1)
            if summation == "outside":
                total += tf.reduce_sum(tf.where(positives, log_ratio, 0.0), axis=1)
            else:
                log_ratio = tf.where(positives, log_ratio, LOG_ZERO)
                new_largest = tf.maximum(largest, tf.reduce_max(log_ratio, axis=1))
                weight *= tf.exp(log_ratio - new_largest[:, None])
                rescale = tf.exp(largest - new_largest)
                total, negative_factor = total * rescale, negative_factor * rescale
                largest = new_largest
                total += tf.reduce_sum(weight, axis=1)
            if denominator == "one_positive":
                # 1 - ratio is the negatives' share of D_ip.
                negative_factor -= tf.reduce_sum(weight * tf.math.expm1(log_ratio), axis=1)
            return count, largest, total, negative_factor

        zeros = tf.zeros_like(log_denominator[i])
        count, largest, total, negative_factor = fold(
            start[i], stop[i], add, zeros, zeros + LOG_ZERO, zeros, zeros
        )
        num_positives = tf.maximum(count, 1.0)
        if summation == "outside":
            loss = -total / num_positives
            log_positives = tf.math.log(num_positives)
            negative_factor /= num_positives
        else:
            # With positives the sum is at least 1, from the largest of them.
            total = tf.maximum(total, 1.0)
            log_positives = largest + tf.math.log(total)
            loss = tf.math.log(num_positives) - log_positives
            negative_factor /= total
        return count, loss, log_positives, negative_factor

    count, losses, log_positives, negative_factor = map_tiles(
        anchors, anchor_tile, (tf.float32,) * 4
    )
    is_defined = count > 0
    if denominator == "only_negatives":
        is_defined &= log_denominator > LOG_ZERO / 2
    if denominator != "one_positive":
        negative_factor = tf.ones_like(negative_factor)
    weight = tf.cast(is_defined, tf.float32)
    terms = AnchorTerms(log_denominator, log_positives, negative_factor, weight)
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
    """Gradient of the anchors' losses with respect to a tile of s; `terms` broadcast to it."""
    log_ratio = _log_ratio(s, terms.log_denominator, denominator)
    # A share is at most 1; the minimum keeps masked-out pairs finite.
    share = tf.exp(
        tf.minimum(log_ratio if summation == "inside" else 0.0, terms.log_positives)
        - terms.log_positives
    )
    softmax = tf.exp(tf.minimum(s - terms.log_denominator, 0.0))
    if denominator == "all":
        positive_slopes = softmax - share
    elif denominator == "one_positive":
        positive_slopes = share * tf.math.expm1(log_ratio)
    else:
        positive_slopes = -share * tf.ones_like(s)
    negative_slopes = terms.negative_factor * softmax
    return terms.weight * tf.where(
        positives, positive_slopes, tf.where(negatives, negative_slopes, 0.0)
    )


def gradients(
    anchors: Tiles, contrast: Tiles, terms: AnchorTerms, **options: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients with respect to the anchor and the contrast rows: [T, b, D] and [T', b', D]."""

    def anchor_tile(
        i: tf.Tensor, anchor_gradients: Any, contrast_gradients: Any
    ) -> tuple[Any, Any]:
        def add(
            j: tf.Tensor, anchor_gradient: tf.Tensor, contrast_gradients: Any
        ) -> tuple[tf.Tensor, Any]:
            s = similarities(anchors, i, contrast, j)
            masks = positives_and_negatives(anchors, i, contrast, j)
            slope = slopes(s, *masks, terms.tile(i), **options)
            contrast_gradient = contrast_gradients.read(j) + tf.matmul(
                slope, anchors.rows[i], transpose_a=True
            )
            return (
                anchor_gradient + tf.matmul(slope, contrast.rows[j]),
                contrast_gradients.write(j, contrast_gradient),
            )

        anchor_gradient, contrast_gradients = fold(
            0, num_tiles(contrast), add, tf.zeros_like(anchors.rows[i]), contrast_gradients
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


def _log_ratio(s: tf.Tensor, log_denominator: tf.Tensor, denominator: Denominator) -> tf.Tensor:
    """log(exp(s_ip) / D_ip)."""
    if denominator == "one_positive":
        return tf.math.log_sigmoid(s - log_denominator)
    return s - log_denominator
