"""The passes for anchors that are the contrast set: one visit per pair of tiles.

The similarities are symmetric, so one exponential serves row i as the anchor and row j as the
anchor. The rows are normalised and the temperature is at least `MIN_TEMPERATURE`, so exp(s) needs
no maximum subtracted.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from supcon_tf.losses.dense import LOG_ZERO, Entries
from supcon_tf.losses.streaming.tiles import (
    Tiles,
    fold,
    shares_label,
    similarities,
    zeros_by_tile,
)

# At 1 / temperature = 40 the sums of exp(s) and their inverses stay below 3e25.
MIN_TEMPERATURE = 0.025


# A tf.function, because an eager loop would run one operation at a time.
@tf.function(autograph=False)
def log_sums(
    tiles: Tiles,
    log_weights: tf.Tensor | None,
    stop: tf.Tensor,
    entries: Entries,
) -> tf.Tensor:
    """Log of the sum over A or N of exp(s_ij + w_j), LOG_ZERO if empty: [T, b].

    Args:
      tiles: anchors and contrast set.
      log_weights: w, [T, b], without a gradient; LOG_ZERO for padding. None for zeros.
      stop: int32 [T]. Tiles j >= stop[i] have no positive of tile i.
      entries: the rows in the sum.
    """
    if log_weights is None:
        weights = tf.cast(tiles.positions >= 0, tf.float32)
    else:
        weights = tf.exp(log_weights)

    @tf.custom_gradient
    def sums_of(rows: tf.Tensor) -> Any:
        exponentials = _Exponentials(tiles._replace(rows=rows), stop, entries)

        def sums(exponential: tf.Tensor, i: tf.Tensor, j: tf.Tensor) -> Any:
            to_i = tf.linalg.matvec(exponential, weights[j])
            to_j = tf.linalg.matvec(exponential, weights[i], transpose_a=True)
            return to_i[:, None], to_j[:, None]

        total = exponentials.sum_over_pairs(sums, weights[..., None])[..., 0]
        is_defined = total > 0
        total = tf.where(is_defined, total, 1.0)

        def gradient_of(upstream: tf.Tensor) -> tf.Tensor:
            # The gradient with respect to the sum of exponentials.
            slopes = tf.where(is_defined, upstream / total, 0.0)

            def products(exponential: tf.Tensor, i: tf.Tensor, j: tf.Tensor) -> Any:
                # Rows i as anchors plus rows j as anchors.
                if log_weights is None:
                    factors = slopes[i][:, None] + slopes[j]
                else:
                    factors = slopes[i][:, None] * weights[j] + weights[i][:, None] * slopes[j]
                slope = factors * exponential
                return tf.matmul(slope, rows[j]), tf.matmul(slope, rows[i], transpose_a=True)

            return exponentials.sum_over_pairs(products, rows)

        return tf.where(is_defined, tf.math.log(total), LOG_ZERO), gradient_of

    return sums_of(tiles.rows)


class _Exponentials:
    """exp(s) of pairs of tiles, 0 for pairs that are not in the sums."""

    def __init__(self, tiles: Tiles, stop: tf.Tensor, entries: Entries):
        self._tiles, self._stop, self._entries = tiles, stop, entries

    def sum_over_pairs(self, terms: Callable[..., Any], like: tf.Tensor) -> tf.Tensor:
        """Sum for every tile of its terms with itself and all other tiles, shaped like `like`.

        Args:
          terms: exp(s) [b, b], i, j -> the terms of the pair for tile i and for tile j, [b, K].
          like: [T, b, K], the shape of the result.
        """
        num_tiles = like.shape[0] or tf.shape(like)[0]

        def add(i: tf.Tensor, *, masked: bool) -> Callable[..., tuple[tf.Tensor, tf.TensorArray]]:
            def step(
                j: tf.Tensor, sum_i: tf.Tensor, sums: tf.TensorArray
            ) -> tuple[tf.Tensor, tf.TensorArray]:
                to_i, to_j = terms(self._of_pair(i, j, masked=masked), i, j)
                return sum_i + to_i, sums.write(j, sums.read(j) + to_j)

            return step

        def add_tile(i: tf.Tensor, sums: tf.TensorArray) -> tuple[tf.TensorArray]:
            masked = self._entries == "negatives"
            same_tile = self._of_pair(i, i, masked=masked)
            same_tile = tf.linalg.set_diag(same_tile, tf.zeros_like(same_tile[0]))
            sum_i, first_unmasked = terms(same_tile, i, i)[0], i + 1
            if masked:
                first_unmasked = tf.maximum(i + 1, self._stop[i])
                sum_i, sums = fold(i + 1, first_unmasked, add(i, masked=True), sum_i, sums)
            sum_i, sums = fold(first_unmasked, num_tiles, add(i, masked=False), sum_i, sums)
            return (sums.write(i, sums.read(i) + sum_i),)

        (sums,) = fold(0, num_tiles, add_tile, zeros_by_tile(like))
        return sums.stack()

    def _of_pair(self, i: tf.Tensor, j: tf.Tensor, *, masked: bool) -> tf.Tensor:
        exponential = tf.exp(similarities(self._tiles, i, self._tiles, j))
        if not masked:
            return exponential
        return tf.where(shares_label(self._tiles, i, self._tiles, j), 0.0, exponential)
