"""Blocks of rows, masks of one block against another, and loops over blocks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from supcon_tf.losses.batch import share_label

# A block of 1,008 x 1,008 similarities is 4 MB: it stays in the cache, and its product fills the
# cores.
MAX_BLOCK_ROWS = 1008


class Blocks(NamedTuple):
    """T blocks of b rows in the order of their classes; zeros fill up the last block."""

    rows: tf.Tensor  # float32 [T, b, D], divided by the root of the temperature
    labels: tf.Tensor  # int32 [T, b], or float32 [T, b, C] of zeros and ones
    places: tf.Tensor  # int32 [T, b], the row's place in the contrast set; -1 fills up


def cut(values: tf.Tensor, *, fill: int = 0, max_rows: Any = MAX_BLOCK_ROWS) -> tf.Tensor:
    """[n, ...] -> [T, b, ...] with T b >= n and b at most `max_rows`, or 16."""
    # A size that is known stays a Python number, so that the shapes of the blocks are known.
    num_rows = values.shape[0] or tf.maximum(tf.shape(values)[0], 1)
    block_rows = -(-num_rows // -(-num_rows // max_rows))
    # Multiples of 16 floats keep every block aligned; odd ones, because the columns of 1,024 x
    # 1,024 floats fall onto the same few cache lines, which slows products with such a block.
    block_rows = 16 + 32 * -(-(block_rows - 16) // 32)
    num_blocks = -(-num_rows // block_rows)
    missing = num_blocks * block_rows - tf.shape(values)[0]
    padding = [[0, missing]] + [[0, 0]] * (values.shape.rank - 1)
    widths = [
        tf.shape(values)[axis] if width is None else width
        for axis, width in enumerate(values.shape[1:], start=1)
    ]
    return tf.reshape(
        tf.pad(values, padding, constant_values=fill), [num_blocks, block_rows, *widths]
    )


def join(blocks: tf.Tensor, num_rows: Any) -> tf.Tensor:
    """[T, b, ...] -> [n, ...], the inverse of `cut`."""
    return tf.reshape(blocks, [-1, *blocks.shape[2:]])[:num_rows]


def similarities(anchors: Blocks, i: tf.Tensor, contrast: Blocks, j: tf.Tensor) -> tf.Tensor:
    """s of block i of the anchors with block j of the contrast set: [b, b']."""
    return tf.matmul(anchors.rows[i], contrast.rows[j], transpose_b=True)


def positives_and_negatives(
    anchors: Blocks, i: tf.Tensor, contrast: Blocks, j: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Masks of block i of the anchors against block j of the contrast set: bool [b, b'] twice."""
    place, other = anchors.places[i][:, None], contrast.places[j][None, :]
    is_pair = (place != other) & (place >= 0) & (other >= 0)
    shares = share_label(anchors.labels[i], contrast.labels[j])
    return shares & is_pair, ~shares & is_pair


def num_blocks(blocks: Blocks) -> Any:
    """T, an integer where it is known."""
    return blocks.rows.shape[0] or tf.shape(blocks.rows)[0]


def for_each_block(blocks: Blocks, function: Callable[[tf.Tensor], Any], dtypes: Any) -> Any:
    """function(i) for every block, stacked."""
    return tf.map_fn(
        function,
        tf.range(num_blocks(blocks)),
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


def zeros_by_block(like: tf.Tensor) -> tf.TensorArray:
    """An array of T zeros, one for each block, that a loop can read and write."""
    return tf.TensorArray(
        like.dtype,
        size=like.shape[0] or tf.shape(like)[0],
        element_shape=like.shape[1:],
        clear_after_read=False,
    ).unstack(tf.zeros_like(like))
