"""Bilinear resampling of windows of one image or a batch, and of whole images."""

import functools
from typing import NamedTuple, TypeVar

import tensorflow as tf

from supcon_tf.errors import UserError

# Up to this many crops of an image are unrolled instead of looped over.
_MAX_UNROLLED = 4
# The weights of all windows are cached up to this many numbers (16 MB); at 32 px they take 9 MB.
_MAX_CACHED = 2**22


_Length = TypeVar("_Length", int, tf.Tensor)


class Windows(NamedTuple):
    """Windows of images, int32 [...] in pixels, and whether each is mirrored, bool [...]."""

    top: tf.Tensor
    left: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    mirrored: tf.Tensor


def resample_each(image: tf.Tensor, windows: Windows, size_px: int) -> tf.Tensor:
    """Resamples windows [V] of one image [H, W, 3].

    Returns:
      float32 [V, size_px, size_px, 3] in [0, 1] up to rounding.
    """

    def resampled(window: Windows) -> tf.Tensor:
        begin = tf.stack([window.top, window.left, 0])
        part = tf.slice(image, begin, tf.stack([window.height, window.width, 3]))
        part = tf.cond(window.mirrored, lambda: tf.reverse(part, axis=[1]), lambda: part)
        return _resampled(part, (size_px, size_px))

    count = windows.top.shape[0]
    if count is None or count > _MAX_UNROLLED:
        crops = tf.map_fn(resampled, windows, fn_output_signature=tf.float32)
    else:
        crops = tf.stack([resampled(Windows(*each)) for each in zip(*map(tf.unstack, windows))])
    return crops * _scale(image)


def resample_batch(images: tf.Tensor, windows: Windows, size_px: int) -> tf.Tensor:
    """Resamples windows [B, V] of a batch [B, H, W, 3] by one matrix product per axis.

    Returns:
      float32 [B, V, size_px, size_px, 3], equal to `resample_each` up to rounding.

    Raises:
      UserError: height or width is not static.
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
    # [B, H, W, 3] -> [B, 3, H, W]; tf.transpose of uint8 is slower and makes oneDNN warn.
    planes = tf.cast(tf.stack(tf.unstack(images, axis=-1), axis=1), tf.float32)
    rows = tf.matmul(down[:, :, None], planes[:, None])  # [B, V, 3, s, W]
    rows = tf.reshape(rows, tf.concat([tf.shape(down)[:2], [3 * size_px, width]], axis=0))
    crops = tf.matmul(rows, across, transpose_b=True)  # [B, V, 3*s, s]
    pixels = tf.transpose(tf.reshape(crops, [-1, 3, size_px * size_px]), [0, 2, 1])
    return tf.reshape(pixels, [-1, tf.shape(down)[1], size_px, size_px, 3])


def resize(image: tf.Tensor, size: tuple[int | tf.Tensor, int | tf.Tensor]) -> tf.Tensor:
    """Bilinear resizing; an image that shrinks to less than half along both sides is halved first.

    Halving averages pairs of pixels and repeats until each side is at most twice the result's.
    Bilinear resizing alone would skip pixels there.

    Args:
      image: uint8, or float32 in [0, 1], [..., H, W, 3].
      size: height and width of the result.

    Returns:
      float32 [..., height, width, 3] in [0, 1] up to rounding.
    """
    return _resampled(image, size) * _scale(image)


def _scale(image: tf.Tensor) -> float:
    return 1.0 / 255.0 if image.dtype == tf.uint8 else 1.0


def _resampled(image: tf.Tensor, size: tuple[int | tf.Tensor, int | tf.Tensor]) -> tf.Tensor:
    # Keeps the scale of the image.
    def large(image: tf.Tensor) -> tf.Tensor:
        return tf.shape(image)[-3:-1] > 2 * tf.stack(size)

    def halved(image: tf.Tensor) -> tf.Tensor:
        sides = tf.shape(image)[-3:-1]
        return tf.image.resize(image, tf.where(large(image), _half(sides), sides))

    def halved_while(goes_on: bool | tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        [smaller] = tf.while_loop(
            lambda image: goes_on & tf.reduce_any(large(image)),
            lambda image: [halved(image)],
            [image],
            shape_invariants=[tf.TensorShape([*image.shape[:-3], None, None, 3])],
        )
        return smaller

    shrinks = tf.reduce_all(large(image))
    if image.dtype == tf.float32:
        # Without a condition, in which OpenVINO returns memory that was never written.
        return tf.image.resize(halved_while(shrinks, image), size)
    return tf.cond(
        shrinks,
        lambda: tf.image.resize(halved_while(True, halved(image)), size),
        lambda: tf.image.resize(image, size),
    )


def _half(length: _Length) -> _Length:
    # Rounded up, so that no pixel of an odd side is skipped.
    return (length + 1) // 2


class _Spans(NamedTuple):
    """Windows [...] along one axis; `shrinks` if both sides of one shrink to less than half."""

    start: tf.Tensor
    length: tf.Tensor
    mirrored: tf.Tensor
    shrinks: tf.Tensor


def _weights(spans: _Spans, source_px: int, size_px: int, *, total: float = 1.0) -> tf.Tensor:
    """Interpolation weights of spans [B, V]: [B, V, size, source], rows sum to `total`."""
    count = 2 * (source_px + 1) * source_px * size_px * source_px
    with tf.init_scope():
        can_cache = tf.executing_eagerly()  # False in a tf.Graph of TensorFlow 1.
    if source_px > 2 * size_px or count > _MAX_CACHED or not can_cache:
        return _computed_weights(spans, source_px, size_px, total)
    index = tf.cast(spans.mirrored, tf.int32) * (source_px + 1) + spans.length
    cached = _weights_of_all_spans(source_px, size_px, total)
    return tf.gather(cached, index * source_px + spans.start)


@functools.lru_cache(maxsize=4)
def _weights_of_all_spans(source_px: int, size_px: int, total: float) -> tf.Tensor:
    """[2 * (source + 1) * source, size, source]: by mirrored, length and start."""
    # An eager tensor, even while a function is being traced.
    with tf.init_scope(), tf.device("CPU:0"):
        ranges = [tf.range(count) for count in (2, source_px + 1, source_px)]
        mirrored, length, start = (
            tf.reshape(values, [-1]) for values in tf.meshgrid(*ranges, indexing="ij")
        )
        spans = _Spans(start, length, mirrored == 1, tf.zeros_like(start, tf.bool))
        return _computed_weights(spans, source_px, size_px, total)


def _computed_weights(spans: _Spans, source_px: int, size_px: int, total: float) -> tf.Tensor:
    start, length, mirrored, shrinks = spans
    target = tf.range(size_px, dtype=tf.float32)
    target = tf.where(mirrored[..., None], size_px - 1.0 - target, target)
    all_pixels = tf.range(source_px, dtype=tf.float32)
    source = tf.cast(tf.range(source_px) - start[..., None], tf.float32)
    steps = []
    # A span that needs fewer halvings than the others keeps its length in the last rounds.
    while source_px > 2 * size_px:
        halved = tf.where(shrinks & (length > 2 * size_px), _half(length), length)
        steps.append(_bilinear(all_pixels, source, halved, length))
        length, source, source_px = halved, all_pixels, _half(source_px)
    steps.append(_bilinear(target, source, size_px, length, total))
    return functools.reduce(tf.matmul, reversed(steps))


def _bilinear(
    target: tf.Tensor,
    source: tf.Tensor,
    size: int | tf.Tensor,
    length: tf.Tensor,
    total: float = 1.0,
) -> tf.Tensor:
    """Weights of `source` pixels [..., C] of a `length` in `target` pixels [..., R] of a `size`."""
    length = tf.cast(length, tf.float32)[..., None]
    step = length / tf.cast(size, tf.float32)[..., None]
    # Positions are relative to the window: smaller numbers have smaller rounding errors.
    centre = tf.clip_by_value((target + 0.5) * step - 0.5, 0.0, length - 1.0)
    offset = total * centre[..., None] - total * source[..., None, :]
    return tf.nn.relu(total - tf.abs(offset))
