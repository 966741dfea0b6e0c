"""Bilinear resampling: of windows of one image, of a batch of small ones, of whole images."""

import functools
from typing import NamedTuple

import tensorflow as tf

# So few crops of an image are traced one by one, which saves a loop in the graph.
_FEW = 4
# Of images so small that there are so many numbers at most, 16 MB, the weights of all windows are
# kept, for four sizes and scales: those of 32 px are 9 MB for bytes.
_KEPT = 2**22


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
        raise ValueError(f"a batch needs a known height and width, got shape {images.shape}")
    averaged = tf.minimum(windows.height, windows.width) > 2 * size_px
    upright = tf.zeros_like(windows.mirrored)
    vertical = _Spans(windows.top, windows.height, upright, averaged)
    horizontal = _Spans(windows.left, windows.width, windows.mirrored, averaged)
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
    """Bilinear, averaging where both sides shrink to less than half.

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
    height, width = tf.shape(image)[-3], tf.shape(image)[-2]
    shrinks = (height > 2 * size[0]) & (width > 2 * size[1])
    return tf.cond(
        shrinks,
        lambda: tf.image.resize(image, size, antialias=True),
        lambda: tf.image.resize(image, size),
    )


class _Spans(NamedTuple):
    """The windows [...] along one axis; `averaged` where the window shrinks so much."""

    start: tf.Tensor
    length: tf.Tensor
    mirrored: tf.Tensor
    averaged: tf.Tensor


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
    start, length, mirrored, averaged = spans
    step = tf.cast(length, tf.float32)[..., None] / size_px
    place = tf.range(size_px, dtype=tf.float32)
    place = tf.where(mirrored[..., None], size_px - 1.0 - place, place)
    # Positions are those within the window, as small numbers are the more exact ones.
    last = tf.cast(length, tf.float32)[..., None] - 1.0
    centre = (place + 0.5) * step - 0.5
    source = tf.cast(tf.range(source_px) - start[..., None], tf.float32)[..., None, :]
    if source_px <= 2 * size_px:
        offset = total * tf.clip_by_value(centre, 0.0, last)[..., None] - total * source
        return tf.nn.relu(total - tf.abs(offset))
    spread = tf.where(averaged[..., None], tf.maximum(step, 1.0), 1.0)[..., None]
    weights = tf.nn.relu(1.0 - tf.abs(centre[..., None] - source) / spread)
    inside = (source >= 0.0) & (source <= last[..., None])
    weights = tf.where(inside, weights, 0.0)
    return weights * (total / tf.reduce_sum(weights, axis=-1, keepdims=True))
