"""Random resized crops of one image or a batch."""

import functools
import math

import tensorflow as tf

from supcon_tf.data.augment.rng import uniforms
from supcon_tf.data.decode import REDUCTIONS, open_image, reduced
from supcon_tf.data.resampling import Windows, resample_batch, resample_each
from supcon_tf.errors import UserError, check_integer, check_number, check_range


def random_resized_crop(
    image: tf.Tensor,
    *,
    seed: int | tf.Tensor,
    size_px: int,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
    flip_probability: float = 0.5,
    num_tries: int = 10,
) -> tf.Tensor:
    """Crops a random window of the image, resizes it to a square, and mirrors it at random.

    The window's area is uniform in `area_range` times the image's area, its aspect ratio (width /
    height) log-uniform in `aspect_range`, its position uniform (SimCLR, Chen et al. 2020,
    appendix A, as torchvision implements it). If no try fits into the image, the largest centre
    square is used.

    The released TensorFlow SupCon code calls `tf.image.sample_distorted_bounding_box` instead: the
    aspect ratio is uniform in [0.75, 1.33] and then the height is uniform over those that keep the
    area in its range, which makes small areas more frequent, with 100 tries.

    Resampling is bilinear; a crop that shrinks to less than half along both sides is halved first,
    as in `resampling.resize`. From an upright JPEG only the smallest window around all crops is
    decoded, once. If every crop shrinks to less than half, the JPEG is decoded at 1/2, 1/4 or 1/8
    of its size, and the windows are rounded to its pixels.

    Args:
      image: encoded (string scalar), or uint8 or float32 in [0, 1] [H, W, 3], or a batch of such
        pixels [B, H, W, 3].
      seed: int64. [] or [V] for one image, [B] or [B, V] for a batch: V crops of each.
      size_px: side of the result, >= 1.
      area_range: smallest and largest fraction of the image's area, in (0, 1].
      aspect_range: smallest and largest width / height, > 0.
      flip_probability: of mirroring left and right, 0 to 1.
      num_tries: number of windows tried before falling back, >= 1.

    Returns:
      float32 [..., size_px, size_px, 3] in [0, 1] up to rounding, with the leading axes of the
      seed.

    Raises:
      UserError: an option is out of range, or image or seed has another shape.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> image = tf.zeros([40, 60, 3], tf.uint8)
      >>> views.random_resized_crop(image, seed=1, size_px=32).shape
      TensorShape([32, 32, 3])
      >>> batch = tf.zeros([5, 32, 32, 3], tf.uint8)
      >>> seeds = tf.range(10, dtype=tf.int64)
      >>> views.random_resized_crop(batch, seed=tf.reshape(seeds, [5, 2]), size_px=32).shape
      TensorShape([5, 2, 32, 32, 3])
    """
    check_integer("size_px", size_px, at_least=1)
    check_range("area_range", area_range, at_most=1, example=(0.08, 1.0))
    check_range("aspect_range", aspect_range, example=(0.75, 1.33))
    check_number("flip_probability", flip_probability, at_least=0, at_most=1)
    check_integer("num_tries", num_tries, at_least=1)
    image, seed = tf.convert_to_tensor(image), tf.convert_to_tensor(seed, tf.int64)
    check_channels(image)
    is_batch = image.shape.rank == 4
    if seed.shape.rank not in (None, *((1, 2) if is_batch else (0, 1))) or (
        is_batch and not seed.shape[:1].is_compatible_with(image.shape[:1])
    ):
        raise UserError(
            f"seed must be [B] or [B, V] for images [B, H, W, 3], else [] or [V], got {seed.shape} "
            f"for images of shape {image.shape}"
        )
    sample_windows = functools.partial(
        draw_windows,
        area_range=area_range,
        aspect_range=aspect_range,
        flip_probability=flip_probability,
        num_tries=num_tries,
    )
    if is_batch:
        windows = sample_windows(tf.shape(image)[1:3], tf.reshape(seed, [tf.shape(image)[0], -1]))
        crops = resample_batch(image, windows, size_px)
    else:
        size, reducible, read = open_image(image)
        windows = sample_windows(size, tf.reshape(seed, [-1]))
        starts = tf.stack([windows.top, windows.left])  # [2, V]
        ends = starts + tf.stack([windows.height, windows.width])
        # No crop is read smaller than its size in the result.
        allowed = reducible & (tf.constant(REDUCTIONS) <= tf.reduce_min(ends - starts) // size_px)
        reduction = tf.reduce_max(tf.where(allowed, REDUCTIONS, 1))
        corner = tf.reduce_min(starts, axis=1)
        bounding_window = tf.concat([corner, tf.reduce_max(ends, axis=1) - corner], axis=0)
        pixels, origin = read(bounding_window, reduction)
        starts, ends = reduced(starts, reduction), reduced(ends, reduction)
        top, left = tf.unstack(starts - origin[:, None])
        height, width = tf.unstack(ends - starts)
        windows = Windows(top, left, height, width, windows.mirrored)
        crops = resample_each(pixels, windows, size_px)
    return tf.reshape(crops, tf.concat([tf.shape(seed), [size_px, size_px, 3]], axis=0))


def check_channels(image: tf.Tensor) -> None:
    """Rejects decoded images of other ranks, or of other than three channels."""
    shape = tf.TensorShape(image.shape)
    if shape.rank not in (None, 0, 3, 4):
        raise UserError(
            f"an image must be encoded [], or [H, W, 3] or [B, H, W, 3], got shape {shape}"
        )
    if shape.rank in (3, 4) and shape[-1] not in (None, 3):
        raise UserError(
            f"crops and augmentations need images of 3 channels, got {shape[-1]}: train a "
            "model on other images by `models.contrastive_model` in a script of your own"
        )


def draw_windows(
    size: tf.Tensor,
    seed: tf.Tensor,
    *,
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
    flip_probability: float,
    num_tries: int,
) -> Windows:
    """Samples a window for each seed, int64 [...], in images of this size, int32 [2]."""
    height, width = size[0], size[1]
    numbers = uniforms(seed, 2 * num_tries + 3)
    area_numbers, aspect_numbers, last = tf.split(numbers, [num_tries, num_tries, 3], axis=-1)
    area = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    areas = area * (area_range[0] + (area_range[1] - area_range[0]) * area_numbers)
    low, high = (math.log(aspect) for aspect in aspect_range)
    aspects = tf.exp(low + (high - low) * aspect_numbers)
    widths = tf.maximum(tf.cast(tf.round(tf.sqrt(areas * aspects)), tf.int32), 1)
    heights = tf.maximum(tf.cast(tf.round(tf.sqrt(areas / aspects)), tf.int32), 1)
    fits = (widths <= width) & (heights <= height)
    any_fits = tf.reduce_any(fits, axis=-1)
    chosen = tf.argmax(tf.cast(fits, tf.int32), axis=-1, output_type=tf.int32)
    side = tf.minimum(height, width)
    rank = len(seed.shape)
    crop_height = tf.where(any_fits, tf.gather(heights, chosen, batch_dims=rank), side)
    crop_width = tf.where(any_fits, tf.gather(widths, chosen, batch_dims=rank), side)

    def corner(margin: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        position = tf.cast(number * tf.cast(margin + 1, tf.float32), tf.int32)
        # float32 may round up to margin + 1.
        return tf.where(any_fits, tf.minimum(position, margin), margin // 2)

    return Windows(
        corner(height - crop_height, last[..., 0]),
        corner(width - crop_width, last[..., 1]),
        crop_height,
        crop_width,
        last[..., 2] < flip_probability,
    )
