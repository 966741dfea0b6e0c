"""Tiles of rows, the masks of a pair of tiles, and loops over tiles."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from supcon_tf.losses.multiview import share_label

# A tile of 1,008 x 1,008 similarities (4 MB) fits in the cache and keeps all cores busy.
MAX_TILE_ROWS = 1008
# Of the passes over positives only.
MAX_POSITIVE_TILE_ROWS = 112


class Tiles(NamedTuple):
    """T tiles of b rows, ordered by class; the last tile is padded."""

    rows: tf.Tensor  # float32 [T, b, D], divided by the square root of the temperature
    labels: tf.Tensor  # int32 [T, b], or float32 [T, b, C] of zeros and ones
    positions: tf.Tensor  # int32 [T, b], the row's position in the contrast set; -1 for padding

    def with_column(self, column: tf.Tensor) -> "Tiles":
        """The tiles with one more number per row, [T, b]."""
        return self._replace(rows=tf.concat([self.rows, column[..., None]], axis=-1))


def split_into_tiles(values: tf.Tensor, max_rows: Any, *, padding: float = 0) -> tf.Tensor:
    """[n, ...] -> [T, b, ...] with T b >= n and b at most `max_rows`, or 16."""
    # A known size stays a Python number, so that the tiles have static shapes.
    num_rows = values.shape[0] or tf.maximum(tf.shape(values)[0], 1)
    tile_rows = -(-num_rows // -(-num_rows // max_rows))
    # Odd multiples of 16: 16 floats align the tiles, and the columns of a 1,024 x 1,024 tile
    # would compete for the same cache lines, which slows its matrix products.
    tile_rows = 16 + 32 * -(-(tile_rows - 16) // 32)
    num_tiles = -(-num_rows // tile_rows)
    missing = num_tiles * tile_rows - tf.shape(values)[0]
    widths = [
        tf.shape(values)[axis] if width is None else width
        for axis, width in enumerate(values.shape[1:], start=1)
    ]
    paddings = [[0, missing]] + [[0, 0]] * (values.shape.rank - 1)
    padded = tf.pad(values, paddings, constant_values=padding)
    return tf.reshape(padded, [num_tiles, tile_rows, *widths])


def merge_tiles(tiles: tf.Tensor, num_rows: Any) -> tf.Tensor:
    """[T, b, ...] -> [n, ...], the inverse of `split_into_tiles`."""
    return tf.reshape(tiles, [-1, *tiles.shape[2:]])[:num_rows]


def similarities(anchors: Tiles, i: tf.Tensor, contrast: Tiles, j: tf.Tensor) -> tf.Tensor:
    """Similarities s of anchor tile i with contrast tile j: [b, b']."""
    return tf.matmul(anchors.rows[i], contrast.rows[j], transpose_b=True)


def shares_label(anchors: Tiles, i: tf.Tensor, contrast: Tiles, j: tf.Tensor) -> tf.Tensor:
    """Whether a row of anchor tile i shares a label with one of contrast tile j: bool [b, b']."""
    return share_label(anchors.labels[i], contrast.labels[j])


def is_other_row(anchors: Tiles, i: tf.Tensor, contrast: Tiles, j: tf.Tensor) -> tf.Tensor:
    """Whether the rows of anchor tile i and contrast tile j are different rows: bool [b, b']."""
    return anchors.positions[i][:, None] != contrast.positions[j][None, :]


def num_tiles(tiles: Tiles) -> Any:
    """T, a Python integer where it is known."""
    return tiles.rows.shape[0] or tf.shape(tiles.rows)[0]


def map_tiles(tiles: Tiles, function: Callable[[tf.Tensor], Any], dtypes: Any) -> Any:
    """function(i) for every tile, stacked."""
    return tf.map_fn(
        function,
        tf.range(num_tiles(tiles)),
        fn_output_signature=dtypes,
        parallel_iterations=1,
    )


def fold(
    start: Any, stop: Any, step: Callable[..., tuple[Any, ...]], *state: Any
) -> tuple[Any, ...]:
    """`for i in range(start, stop): state = step(i, *state)` as one loop of the graph."""
    _, *state = tf.while_loop(
        lambda i, *_: i < stop,
        lambda i, *state: (i + 1, *step(i, *state)),
        (start, *state),
        parallel_iterations=1,
    )
    return tuple(state)


def zeros_by_tile(like: tf.Tensor) -> tf.TensorArray:
    """Zeros shaped like [T, ...], as an array that a loop can read and write by tile."""
    return tf.TensorArray(
        like.dtype,
        size=like.shape[0] or tf.shape(like)[0],
        element_shape=like.shape[1:],
        clear_after_read=False,
    ).unstack(tf.zeros_like(like))
