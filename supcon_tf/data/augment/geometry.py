"""Geometric operations of AutoAugment and RandAugment, as Pillow defines them.

Each takes and returns an image uint8 [H, W, 3]. Sampling takes the nearest pixel; positions outside
the image are filled with 128.
"""

import math

import tensorflow as tf

from supcon_tf.data.augment.rng import uniforms

_FILL = 128


def rotate(image: tf.Tensor, *, degrees: tf.Tensor) -> tf.Tensor:
    """Rotates counter-clockwise about the centre."""
    radians = tf.cast(degrees, tf.float64) * (math.pi / 180.0)
    a, b = tf.cos(radians), tf.sin(radians)
    y, x = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float64) / 2.0)
    return _affine(image, a, -b, x - a * x + b * y, b, a, y - b * x - a * y)


def shear_x(image: tf.Tensor, *, factor: tf.Tensor) -> tf.Tensor:
    """Output pixel (x, y) shows input pixel (x + factor * y, y)."""
    return _affine(image, 1.0, tf.cast(factor, tf.float64), 0.0, 0.0, 1.0, 0.0)


def shear_y(image: tf.Tensor, *, factor: tf.Tensor) -> tf.Tensor:
    """Output pixel (x, y) shows input pixel (x, y + factor * x)."""
    return _affine(image, 1.0, 0.0, 0.0, tf.cast(factor, tf.float64), 1.0, 0.0)


def translate_x(image: tf.Tensor, *, pixels: tf.Tensor) -> tf.Tensor:
    """Output pixel (x, y) shows input pixel (x + pixels, y)."""
    return _affine(image, 1.0, 0.0, tf.cast(pixels, tf.float64), 0.0, 1.0, 0.0)


def translate_y(image: tf.Tensor, *, pixels: tf.Tensor) -> tf.Tensor:
    """Output pixel (x, y) shows input pixel (x, y + pixels)."""
    return _affine(image, 1.0, 0.0, 0.0, 0.0, 1.0, tf.cast(pixels, tf.float64))


def cutout(image: tf.Tensor, *, half_side: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Fills a square of side 2 * half_side around a random pixel, clipped at the border."""
    size = tf.shape(image)[:2]
    place = uniforms(seed, 2) * tf.cast(size, tf.float32)
    center_y, center_x = tf.unstack(tf.cast(place, tf.int32))
    rows = _within(size[0], center_y, half_side)
    columns = tf.repeat(_within(size[1], center_x, half_side), 3)
    hole = tf.reshape(rows[:, None] * columns, tf.shape(image))  # [H, W*3] -> [H, W, 3]
    return image * (1 - hole) + _FILL * hole


def _within(size: tf.Tensor, center: tf.Tensor, half: tf.Tensor) -> tf.Tensor:
    offset = tf.range(size) - center
    return tf.cast((offset >= -half) & (offset < half), tf.uint8)


def _affine(
    image: tf.Tensor,
    a: float | tf.Tensor,
    b: float | tf.Tensor,
    c: float | tf.Tensor,
    d: float | tf.Tensor,
    e: float | tf.Tensor,
    f: float | tf.Tensor,
) -> tf.Tensor:
    """Output pixel (x, y) shows input pixel (a x + b y + c, d x + e y + f); tensors are float64.

    As in Pillow, coordinates start at the image corner (the first pixel's centre is at 0.5) and
    coefficients are 16.16 fixed point, so every machine samples the same pixels.
    """
    height, width, _ = tf.unstack(tf.shape(image))
    # Shifted by one pixel for the frame of fill around the image.
    coefficients = tf.stack([a, b, c + (a + b) / 2 + 1, d, e, f + (d + e) / 2 + 1])
    # Multiples of 2^-16 and their products with integers are exact in float64.
    fixed = tf.floor(coefficients * 65536.0 + 0.5) / 65536.0
    a, b, c, d, e, f = tf.unstack(fixed)
    columns = tf.range(tf.cast(width, tf.float64))
    rows = tf.range(tf.cast(height, tf.float64))[:, None]

    def pixel_index(position: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        clipped = tf.clip_by_value(position, 0.0, tf.cast(last, tf.float64))
        return tf.cast(clipped, tf.int32)  # Truncation is the floor of numbers >= 0.

    x = pixel_index(a * columns + (b * rows + c), width + 1)  # [H, W]
    y = pixel_index(d * columns + (e * rows + f), height + 1)
    framed = tf.pad(image, [[1, 1], [1, 1], [0, 0]], constant_values=_FILL)
    # tf.gather takes 1.5 times as long as gather_nd.
    return tf.gather_nd(tf.reshape(framed, [-1, 3]), (y * (width + 2) + x)[..., None])
