"""Pixel-value operations of AutoAugment and RandAugment, as Pillow defines them.

Each takes and returns an image uint8 [H, W, 3]. Intermediate values are integers below 2^24 in
float32, so they are exact and the results equal Pillow's bit for bit. The released TensorFlow code
differs from Pillow and from this module in three places: Solarize at level 10 wraps its threshold
256 to 0 and inverts everything, Posterize to 0 bits keeps one bit, and Contrast blends with the
number of pixels / 256 instead of the mean grey.
"""

import tensorflow as tf

# ITU-R 601 luma in 16.16 fixed point, as Pillow converts RGB to grey.
_LUMA = (19595.0, 38470.0, 7471.0)


def invert(image: tf.Tensor) -> tf.Tensor:
    """255 - x."""
    return tf.bitwise.invert(image)


def posterize(image: tf.Tensor, *, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the `bits` (0 to 8) highest bits of each value; 0 gives black."""
    mask = 256 - tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32))
    return tf.bitwise.bitwise_and(image, tf.cast(mask, tf.uint8))


def solarize(image: tf.Tensor, *, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts values >= threshold; 256 inverts none."""
    value = tf.cast(image, tf.float32)
    # |255 - x| above and |0 - x| below: several times faster than tf.where on uint8.
    return tf.cast(tf.abs(255.0 * tf.cast(value >= threshold, tf.float32) - value), tf.uint8)


def solarize_add(image: tf.Tensor, *, addition: tf.Tensor) -> tf.Tensor:
    """Adds `addition`, 0 to 128, to the values below 128."""
    dark = tf.cast(image < tf.constant(128, tf.uint8), tf.uint8)
    return image + dark * tf.cast(addition, tf.uint8)


def color(image: tf.Tensor, *, factor: tf.Tensor) -> tf.Tensor:
    """Blends grey (factor 0) with the image (factor 1)."""
    return _blend(_grey(image), image, factor)


def contrast(image: tf.Tensor, *, factor: tf.Tensor) -> tf.Tensor:
    """Blends the rounded mean grey (factor 0) with the image (factor 1)."""
    mean = tf.reduce_mean(tf.cast(_grey(image), tf.float64))
    return _blend(tf.cast(tf.floor(mean + 0.5), tf.float32), image, factor)


def brightness(image: tf.Tensor, *, factor: tf.Tensor) -> tf.Tensor:
    """Blends black (factor 0) with the image (factor 1)."""
    return _blend(tf.constant(0.0), image, factor)


def sharpness(image: tf.Tensor, *, factor: tf.Tensor) -> tf.Tensor:
    """Blends the smoothed image (factor 0) with the image (factor 1).

    The kernel is [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; border pixels do not change.
    """
    height, width, _ = tf.unstack(tf.shape(image))
    value = tf.cast(tf.reshape(image, [height, -1]), tf.float32)  # [H, W, 3] -> [H, W*3]
    total = tf.pad(value, [[1, 1], [3, 3]])
    total = total[:-2] + total[1:-1] + total[2:]
    total = total[:, :-6] + total[:, 3:-3] + total[:, 6:]
    smooth = tf.floor((total + 4.0 * value) / 13.0 + 0.5)
    inner = _inner(height)[:, None] * tf.repeat(_inner(width), 3)
    degenerate = tf.reshape(value + inner * (smooth - value), tf.shape(image))
    return _blend(degenerate, image, factor)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel linearly so that its minimum becomes 0 and its maximum 255."""
    height, width, _ = tf.unstack(tf.shape(image))
    lowest = tf.cast(tf.reduce_min(image, [0, 1]), tf.float64)
    highest = tf.cast(tf.reduce_max(image, [0, 1]), tf.float64)
    scale, lowest = tf.unstack(
        tf.where(highest > lowest, [255.0 / (highest - lowest), lowest], [[1.0], [0.0]])
    )
    # float64 and this order of operations reproduce Pillow, which truncates some exact 255 to 254.
    # [H, W, 3] -> [H, W*3]: TensorFlow is slow along an innermost axis of 3.
    value = tf.cast(tf.reshape(image, [height, -1]), tf.float64)
    value = value * tf.tile(scale, [width]) - tf.tile(lowest * scale, [width])
    stretched = tf.cast(tf.clip_by_value(value, 0.0, 255.0), tf.uint8)
    return tf.reshape(stretched, tf.shape(image))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Maps each channel through its cumulative histogram."""
    bins = _histogram_bins(image)
    histogram = tf.reshape(
        tf.raw_ops.DenseBincount(input=bins, size=768, weights=tf.constant([], tf.int32)), [3, 256]
    )
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    # Number of pixels below the channel's maximum, / 255.
    step = tf.reduce_max(tf.where(below < tf.size(image) // 3, below, 0), 1, keepdims=True) // 255
    table = (below + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    return _look_up(table, bins, tf.shape(image))


def _blend(degenerate: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    value = degenerate + factor * (tf.cast(image, tf.float32) - degenerate)
    return tf.cast(tf.clip_by_value(value, 0.0, 255.0), tf.uint8)


def _grey(image: tf.Tensor) -> tf.Tensor:
    # One product for all three channels. Sums are integers below 2^24, so it is exact on the CPU,
    # where `operations.apply` runs it.
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    luma = tf.matmul(pixels, tf.constant([[weight] * 3 for weight in _LUMA]))
    return tf.reshape(tf.floor((luma + 32768.0) / 65536.0), tf.shape(image))


def _inner(size: tf.Tensor) -> tf.Tensor:
    position = tf.range(size)
    return tf.cast((position > 0) & (position < size - 1), tf.float32)


def _histogram_bins(image: tf.Tensor) -> tf.Tensor:
    # [H, W, 3] -> [H*W*3]; channel c has the bins 256 c to 256 c + 255. The offsets are tiled along
    # a row: TensorFlow broadcasts an innermost axis of 3 slowly.
    rows = tf.reshape(tf.cast(image, tf.int32), [tf.shape(image)[0], -1])
    return tf.reshape(rows + tf.tile([0, 256, 512], [tf.shape(image)[1]]), [-1])


def _look_up(table: tf.Tensor, bins: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    # tf.gather takes 1.5 times as long as gather_nd for single values, and gather_nd calls memmove
    # for each uint8 but not for each quint8.
    flat = tf.bitcast(tf.reshape(tf.cast(table, tf.uint8), [-1]), tf.quint8)
    return tf.reshape(tf.bitcast(tf.gather_nd(flat, bins[:, None]), tf.uint8), shape)
