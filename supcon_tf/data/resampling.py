"""Bilinear resampling: of windows of one image, of a batch of small ones, of whole images."""

import functools
from typing import NamedTuple, TypeVar

import tensorflow as tf

from supcon_tf.errors import UserError

# So few crops of an image are traced one by one, which saves a loop in the graph.
_FEW = 4
# Of images so small that there are so many numbers at most, 16 MB, the weights of all windows are
# kept, for four sizes and scales: those of 32 px are 9 MB for bytes.
_KEPT = 2**22


_Length = TypeVar("_Length", int, tf.Tensor)


class Windows(NamedTuple):
    """Parts of images, int32 [...] in pixels, and which of them are mirrored, bool [...]."""

    top: tf.Tensor
    left: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    mirrored: tf.Tensor


def resample_each(image: tf.Tensor, windows: Windows, size_px: int) -> tf.Tensor:
    """The windows [V] of one image [H, W, 3].

    Returns:
      float32 [V, size_px, size_px, 3] in [0, 1] but for rounding.
    """

    def resampled(window: Windows) -> tf.Tensor:
        begin = tf.stack([window.top, window.left, 0])
        part = tf.slice(image, begin, tf.stack([window.height, window.width, 3]))
        part = tf.cond(window.mirrored, lambda: tf.reverse(part, axis=[1]), lambda: part)
        return _resampled(part, (size_px, size_px))

    count = windows.top.shape[0]
    if count is None or count > _FEW:
        crops = tf.map_fn(resampled, windows, fn_output_signature=tf.float32)
    else:
        crops = tf.stack([resampled(Windows(*each)) for each in zip(*map(tf.unstack, windows))])
    return crops * _scale(image)


def resample_batch(images: tf.Tensor, windows: Windows, size_px: int) -> tf.Tensor:
    """The windows [B, V] of images of one size [B, H, W, 3], as one product for each axis.

    Returns:
      float32 [B, V, size_px, size_px, 3], rounding apart what `resample_each` gives.
    """
    height, width = images.shape[1], images.shape[2]
    if height is None or width is None:
        raise UserError(f"a batch needs a known height and width, got shape {images.shape}")
    upright = tf.zeros_like(windows.mirrored)
    shrinks = tf.minimum(windows.height, windows.width) > 2 * size_px
    vertical = _Spans(windows.top, windows.height, upright, shrinks)
    horizontal = _Spans(windows.left, windows.width, windows.mirrored, shrinks)
    down = _weights(vertical, height, size_px, total=_scale(images))
    across = _weights(horizontal, width, size_px)
    # [B, H, W, 3] -> [B, 3, H, W]; of bytes, tf.transpose is slower, and oneDNN complains.
    planes = tf.cast(tf.stack(tf.unstack(images, axis=-1), axis=1), tf.float32)
    rows = tf.matmul(down[:, :, None], planes[:, None])  # [B, V, 3, s, W]
    rows = tf.reshape(rows, tf.concat([tf.shape(down)[:2], [3 * size_px, width]], axis=0))
    crops = tf.matmul(rows, across, transpose_b=True)  # [B, V, 3*s, s]
    pixels = tf.transpose(tf.reshape(crops, [-1, 3, size_px * size_px]), [0, 2, 1])
    return tf.reshape(pixels, [-1, tf.shape(down)[1], size_px, size_px, 3])


def resize(image: tf.Tensor, size: tuple[int | tf.Tensor, int | tf.Tensor]) -> tf.Tensor:
    """Bilinear, of an image that is first halved where both sides shrink to less than half.

    Each side is halved, which averages pairs of pixels, until it is at most twice the size; from
    more pixels some would be left out.

    Args:
      image: uint8, or float32 in [0, 1], [..., H, W, 3].
      size: height and width of the result.

    Returns:
      float32 in [0, 1] but for rounding, [..., height, width, 3].
    """
    return _resampled(image, size) * _scale(image)


def _scale(image: tf.Tensor) -> float:
    return 1.0 / 255.0 if image.dtype == tf.uint8 else 1.0


def _resampled(image: tf.Tensor, size: tuple[int | tf.Tensor, int | tf.Tensor]) -> tf.Tensor:
    # On the scale of the image.
    def large(image: tf.Tensor) -> tf.Tensor:
        return tf.shape(image)[-3:-1] > 2 * tf.stack(size)

    def halved(image: tf.Tensor) -> tf.Tensor:
        sides = tf.shape(image)[-3:-1]
        return tf.image.resize(image, tf.where(large(image), _half(sides), sides))

    def of_smaller() -> tf.Tensor:
        [smaller] = tf.while_loop(
            lambda image: tf.reduce_any(large(image)),
            lambda image: [halved(image)],
            [halved(image)],
            shape_invariants=[tf.TensorShape([*image.shape[:-3], None, None, 3])],
        )
        return tf.image.resize(smaller, size)

    shrinks = tf.reduce_all(large(image))
    return tf.cond(shrinks, of_smaller, lambda: tf.image.resize(image, size))


def _half(length: _Length) -> _Length:
    # Of an odd number no pixel is left out: it is a little more than half, with uneven weights.
    return (length + 1) // 2


class _Spans(NamedTuple):
    """The windows [...] along one axis; `shrinks` where both sides do so to less than half."""

    start: tf.Tensor
    length: tf.Tensor
    mirrored: tf.Tensor
    shrinks: tf.Tensor


def _weights(spans: _Spans, source_px: int, size_px: int, *, total: float = 1.0) -> tf.Tensor:
    """How much of a source pixel is in a pixel of the result: spans [B, V] -> [B, V, size, source].

    The weights of a pixel of the result add up to `total`.
    """
    of_all = 2 * (source_px + 1) * source_px * size_px * source_px
    with tf.init_scope():
        may_keep = tf.executing_eagerly()  # Not within a tf.Graph of TensorFlow 1.
    if source_px > 2 * size_px or of_all > _KEPT or not may_keep:
        return _computed_weights(spans, source_px, size_px, total)
    number = tf.cast(spans.mirrored, tf.int32) * (source_px + 1) + spans.length
    kept = _weights_of_all_spans(source_px, size_px, total)
    return tf.gather(kept, number * source_px + spans.start)


@functools.lru_cache(maxsize=4)
def _weights_of_all_spans(source_px: int, size_px: int, total: float) -> tf.Tensor:
    """[2 * (source + 1) * source, size, source]: mirrored or not, by length, by start."""
    # A tensor in memory, whatever function is being traced.
    with tf.init_scope(), tf.device("CPU:0"):
        ranges = [tf.range(count) for count in (2, source_px + 1, source_px)]
        mirrored, length, start = (
            tf.reshape(values, [-1]) for values in tf.meshgrid(*ranges, indexing="ij")
        )
        spans = _Spans(start, length, mirrored == 1, tf.zeros_like(start, tf.bool))
        return _computed_weights(spans, source_px, size_px, total)


def _computed_weights(spans: _Spans, source_px: int, size_px: int, total: float) -> tf.Tensor:
    start, length, mirrored, shrinks = spans
    place = tf.range(size_px, dtype=tf.float32)
    place = tf.where(mirrored[..., None], size_px - 1.0 - place, place)
    every = tf.range(source_px, dtype=tf.float32)
    source = tf.cast(tf.range(source_px) - start[..., None], tf.float32)
    steps = []
    # A span that is halved less often than others stays as it is in the last rounds.
    while source_px > 2 * size_px:
        halved = tf.where(shrinks & (length > 2 * size_px), _half(length), length)
        steps.append(_bilinear(every, source, halved, length))
        length, source, source_px = halved, every, _half(source_px)
    steps.append(_bilinear(place, source, size_px, length, total))
    return functools.reduce(tf.matmul, reversed(steps))


def _bilinear(
    place: tf.Tensor,
    source: tf.Tensor,
    size: int | tf.Tensor,
    length: tf.Tensor,
    total: float = 1.0,
) -> tf.Tensor:
    """In pixels `place` [..., R] of `size`, the weights of pixels `source` [..., C] of `length`."""
    length = tf.cast(length, tf.float32)[..., None]
    step = length / tf.cast(size, tf.float32)[..., None]
    # Positions are those within the window, as small numbers are the more exact ones.
    centre = tf.clip_by_value((place + 0.5) * step - 0.5, 0.0, length - 1.0)
    offset = total * centre[..., None] - total * source[..., None, :]
    return tf.nn.relu(total - tf.abs(offset))
