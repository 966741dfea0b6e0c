"""Pairs in linear memory: tiles of similarities, computed again in the backward pass.

docs/loss.md has the algebra, the cost and the measurements.
"""

from typing import Any, Literal

import tensorflow as tf

from supcon_tf.losses.dense import LOG_ZERO, Entries
from supcon_tf.losses.multiview import class_ranges
from supcon_tf.losses.streaming import general, positives, self_contrast, tiles
from supcon_tf.losses.streaming.tiles import Tiles, merge_tiles, split_into_tiles


def allows_self_contrast(temperature: Any) -> bool:
    """Whether exp(s) of unit rows needs no maximum subtracted, so that `self_contrast` applies."""
    return isinstance(temperature, int | float) and temperature >= self_contrast.MIN_TEMPERATURE


class StreamingPairs:
    """`pairs.Pairs` of the arrays of a `MultiviewBatch`, one tile of similarities at a time."""

    def __init__(
        self,
        labels: tf.Tensor,
        anchors: tf.Tensor,
        contrast_labels: tf.Tensor,
        contrast: tf.Tensor,
        first_row: tf.Tensor,
        *,
        allows_self_contrast: bool,
    ):
        self._self_contrast = allows_self_contrast and anchors is contrast
        num_views = contrast.shape[1]
        self._anchors = _OrderedRows(labels, contrast_labels, anchors, first_row, num_views)
        self._contrast = self._anchors
        if anchors is not contrast:
            self._contrast = _OrderedRows(contrast_labels, contrast_labels, contrast, 0, num_views)

    def log_sum(self, entries: Entries, row_log_weights: tf.Tensor | None = None) -> tf.Tensor:
        """See `pairs.Pairs`."""
        max_rows = tiles.MAX_TILE_ROWS
        anchors, contrast = self._anchors.tiles(max_rows), self._contrast.tiles(max_rows)
        log_weights = None
        if row_log_weights is not None:
            log_weights = self._contrast.tiles_of(row_log_weights, max_rows, padding=LOG_ZERO)
        if self._self_contrast:
            _, stop = self._anchors.positive_tiles(anchors, max_rows)
            sums = self_contrast.log_sums(anchors, log_weights, stop, entries)
        else:
            sums = general.log_sums(anchors, contrast, log_weights, entries)
        return self._anchors.in_batch_order(sums)

    def positive_mean(self, log_negatives: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """See `pairs.Pairs`."""
        return self._over_positives(log_negatives, "mean")

    def positive_log_sum(
        self, log_negatives: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `pairs.Pairs`."""
        return self._over_positives(log_negatives, "log_sum")

    def nearest(self) -> tuple[tf.Tensor, tf.Tensor]:
        """See `pairs.Pairs`."""
        max_rows = tiles.MAX_TILE_ROWS
        largest = general.largest(self._anchors.tiles(max_rows), self._contrast.tiles(max_rows))
        to_positive, to_negative = (self._anchors.in_batch_order(values) for values in largest)
        return tf.stop_gradient(to_positive), tf.stop_gradient(to_negative)

    def _over_positives(
        self, log_negatives: tf.Tensor | None, reduction: Literal["mean", "log_sum"]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        max_rows = tiles.MAX_TILE_ROWS
        if self._anchors.is_sorted:
            # A tile has few positives: small tiles have fewer other pairs beside them.
            max_rows = min(max_rows, tiles.MAX_POSITIVE_TILE_ROWS)
        anchors, contrast = self._anchors.tiles(max_rows), self._contrast.tiles(max_rows)
        start, stop = self._anchors.positive_tiles(contrast, max_rows)
        if log_negatives is not None:
            log_negatives = self._anchors.tiles_of(log_negatives, max_rows)
        values, counts = positives.sums(anchors, contrast, log_negatives, start, stop, reduction)
        return self._anchors.in_batch_order(values), self._anchors.in_batch_order(counts)


class _OrderedRows:
    """Rows of samples ordered by class, so that the positives of a tile lie in few tiles.

    Rows of several labels cannot be ordered: they keep their order and may have positives anywhere.

    Args:
      labels: int64 [N] class numbers, or float32 [N, C].
      contrast_labels: the labels of the contrast set, [M] or [M, C].
      features: float32 [N, A, D], the first A of each sample's views.
      first_row: position of the first sample in the contrast set.
      num_views: V, all views of a sample.
    """

    def __init__(
        self,
        labels: tf.Tensor,
        contrast_labels: tf.Tensor,
        features: tf.Tensor,
        first_row: Any,
        num_views: int,
    ):
        self.is_sorted = labels.shape.rank == 1
        if self.is_sorted:
            begin, end = class_ranges(labels, contrast_labels)
            self._samples = tf.argsort(begin)
            labels = begin = tf.gather(begin, self._samples)
            end = tf.gather(end, self._samples)
        else:
            self._samples = tf.range(tf.shape(labels)[0])
            begin = tf.zeros_like(self._samples)
            end = tf.fill(tf.shape(begin), tf.shape(contrast_labels)[0])
        self._num_anchor_views, dim = features.shape[1:]
        positions = (first_row + self._samples)[:, None] * num_views
        self._positions = tf.reshape(positions + tf.range(self._num_anchor_views), [-1])
        self._rows = tf.reshape(_permute(features, self._samples), [-1, dim])
        # Class numbers are replaced by `begin`, which fits into int32.
        self._labels = self._repeat(labels)
        self._first_positive = self._repeat(begin * num_views)
        self._end_of_positives = self._repeat(end * num_views)

    def tiles(self, max_rows: int) -> Tiles:
        """The rows in tiles of at most `max_rows`."""
        return Tiles(
            rows=split_into_tiles(self._rows, max_rows),
            labels=split_into_tiles(self._labels, max_rows, padding=-1),
            positions=split_into_tiles(self._positions, max_rows, padding=-1),
        )

    def tiles_of(self, values: tf.Tensor, max_rows: int, *, padding: float = 0.0) -> tf.Tensor:
        """Values of the rows in batch order, [N * A] -> [T, b]."""
        by_sample = tf.reshape(values, [-1, self._num_anchor_views])
        ordered = tf.reshape(_permute(by_sample, self._samples), [-1])
        ordered.set_shape(self._rows.shape[:1])
        return split_into_tiles(ordered, max_rows, padding=padding)

    def in_batch_order(self, values: tf.Tensor) -> tf.Tensor:
        """[T, b] -> [N * A], the inverse of `tiles_of`."""
        rows = merge_tiles(values, tf.shape(self._rows)[0])
        by_sample = tf.reshape(rows, [-1, self._num_anchor_views])
        order = tf.math.invert_permutation(self._samples)
        return tf.reshape(_permute(by_sample, order), [-1])

    def positive_tiles(self, contrast: Tiles, max_rows: int) -> tuple[tf.Tensor, tf.Tensor]:
        """For each tile the range start ... stop - 1 of contrast tiles with its positives.

        int32 [T] each.
        """
        tile_rows = tf.shape(contrast.rows)[1]
        begin = split_into_tiles(self._first_positive, max_rows)[:, 0]
        end = tf.reduce_max(split_into_tiles(self._end_of_positives, max_rows), axis=1)
        return begin // tile_rows, -(-end // tile_rows)

    def _repeat(self, values: tf.Tensor) -> tf.Tensor:
        """Values of the samples -> of their rows."""
        return tf.repeat(values, self._num_anchor_views, axis=0)


@tf.custom_gradient
def _permute(values: tf.Tensor, order: tf.Tensor) -> Any:
    """tf.gather for a permutation; its gradient is dense, as collectives need it."""

    def gradient_of(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return _permute(upstream, tf.math.invert_permutation(order)), None

    return tf.gather(values, order), gradient_of
