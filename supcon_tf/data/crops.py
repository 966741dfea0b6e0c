"""Random crops, resized to a square: where they lie, of one image or of a whole batch."""

import functools
import math

import tensorflow as tf

from supcon_tf.data.augment.rng import uniforms
from supcon_tf.data.decode import REDUCTIONS, open_image, reduced
from supcon_tf.data.resampling import Windows, resample_batch, resample_each
from supcon_tf.errors import UserError


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
    """Crops a random part of the image, resizes it to a square, and mirrors it at random.

    The part's area is uniform within `area_range` of the image's, its aspect ratio (width /
    height) log-uniform within `aspect_range`, its place uniform. Where no try fits into the image
    the largest centre square is taken. The resampling is bilinear; where both sides shrink to less
    than half, of the crop halved as in `resampling.resize`. Source: SimCLR (Chen et al. 2020),
    appendix A.

    Of an upright JPEG only the smallest window around all crops is decoded, once; where every crop
    shrinks to less than half, the JPEG is decoded at a half, a quarter or an eighth of its size,
    and the windows are rounded to its pixels.

    Args:
      image: encoded (string scalar), or uint8 or float32 in [0, 1] [H, W, 3], or a batch of such
        pixels [B, H, W, 3].
      seed: int64. [] or [V] for one image, [B] or [B, V] for a batch: V crops of each.
      size_px: side of the result.
      area_range: smallest and largest share of the image's area, within (0, 1].
      aspect_range: smallest and largest width / height, > 0.
      flip_probability: of mirroring left and right.
      num_tries: how many parts are drawn before falling back, >= 1.

    Returns:
      float32 [..., size_px, size_px, 3] in [0, 1] but for rounding, with the axes of the seed in
      front.

    Raises:
      UserError: an option that is not as described.

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
    _check_options(area_range, aspect_range, flip_probability, num_tries)
    image, seed = tf.convert_to_tensor(image), tf.convert_to_tensor(seed, tf.int64)
    windows_of = functools.partial(
        draw_windows,
        area_range=area_range,
        aspect_range=aspect_range,
        flip_probability=flip_probability,
        num_tries=num_tries,
    )
    if image.shape.rank == 4:
        windows = windows_of(tf.shape(image)[1:3], tf.reshape(seed, [tf.shape(image)[0], -1]))
        crops = resample_batch(image, windows, size_px)
    else:
        size, reducible, read = open_image(image)
        windows = windows_of(size, tf.reshape(seed, [-1]))
        starts = tf.stack([windows.top, windows.left])  # [2, V]
        ends = starts + tf.stack([windows.height, windows.width])
        # No crop is read at less than its size in the result.
        possible = reducible & (tf.constant(REDUCTIONS) <= tf.reduce_min(ends - starts) // size_px)
        reduction = tf.reduce_max(tf.where(possible, REDUCTIONS, 1))
        corner = tf.reduce_min(starts, axis=1)
        around_all = tf.concat([corner, tf.reduce_max(ends, axis=1) - corner], axis=0)
        pixels, origin = read(around_all, reduction)
        starts, ends = reduced(starts, reduction), reduced(ends, reduction)
        top, left = tf.unstack(starts - origin[:, None])
        height, width = tf.unstack(ends - starts)
        within = Windows(top, left, height, width, windows.mirrored)
        crops = resample_each(pixels, within, size_px)
    return tf.reshape(crops, tf.concat([tf.shape(seed), [size_px, size_px, 3]], axis=0))


def _check_options(
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
    flip_probability: float,
    num_tries: int,
) -> None:
    if not 0 < area_range[0] <= area_range[1] <= 1:
        raise UserError(
            "area_range must be the smallest and the largest share of the area, within (0, 1], got "
            f"{area_range}"
        )
    if not 0 < aspect_range[0] <= aspect_range[1]:
        raise UserError(
            "aspect_range must be the smallest and the largest width / height, > 0, got "
            f"{aspect_range}"
        )
    if not 0 <= flip_probability <= 1:
        raise UserError(f"flip_probability must be within [0, 1], got {flip_probability}")
    if num_tries < 1:
        raise UserError(f"num_tries must be >= 1, got {num_tries}")


def draw_windows(
    size: tf.Tensor,
    seed: tf.Tensor,
    *,
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
    flip_probability: float,
    num_tries: int,
) -> Windows:
    """A window for each seed, int64 [...], in images of this size, int32 [2]."""
    height, width = size[0], size[1]
    numbers = uniforms(seed, 2 * num_tries + 3)
    area_numbers, aspect_numbers, place = tf.split(numbers, [num_tries, num_tries, 3], axis=-1)
    area = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    areas = area * (area_range[0] + (area_range[1] - area_range[0]) * area_numbers)
    low, high = (math.log(aspect) for aspect in aspect_range)
    aspects = tf.exp(low + (high - low) * aspect_numbers)
    widths = tf.maximum(tf.cast(tf.round(tf.sqrt(areas * aspects)), tf.int32), 1)
    heights = tf.maximum(tf.cast(tf.round(tf.sqrt(areas / aspects)), tf.int32), 1)
    fits = (widths <= width) & (heights <= height)
    found = tf.reduce_any(fits, axis=-1)
    chosen = tf.argmax(tf.cast(fits, tf.int32), axis=-1, output_type=tf.int32)
    side = tf.minimum(height, width)
    rank = len(seed.shape)
    crop_height = tf.where(found, tf.gather(heights, chosen, batch_dims=rank), side)
    crop_width = tf.where(found, tf.gather(widths, chosen, batch_dims=rank), side)

    def corner(room: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        anywhere = tf.cast(number * tf.cast(room + 1, tf.float32), tf.int32)
        # float32 may round up to room + 1 itself.
        return tf.where(found, tf.minimum(anywhere, room), room // 2)

    return Windows(
        corner(height - crop_height, place[..., 0]),
        corner(width - crop_width, place[..., 1]),
        crop_height,
        crop_width,
        place[..., 2] < flip_probability,
    )
