"""The smooth random warp of the released SupCon code's SimCLR augmentation."""

import tensorflow as tf

from supcon_tf.data.augment.dispatch import apply_where, map_images
from supcon_tf.data.augment.rng import uniforms

_REFERENCE_SIDE = 224.0
_MAX_LENGTH = 23.0


def random_warp(images: tf.Tensor, *, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Applies `thin_plate_warp` with four random displacements, with this probability.

    A displacement is a standard normal vector times a length, one per image, uniform in
    [0, 23 s / 224] pixels where s is the shorter side.

    Args:
      images: float32 [N, H, W, 3] in [0, 1].
      seed: int64 [N].
      probability: probability of a warp, 0 to 1.
    """
    if probability == 0:
        return images
    mask = uniforms(seed, 1)[:, 0] < probability

    def warped(image: tf.Tensor, image_seed: tf.Tensor) -> tf.Tensor:
        numbers = uniforms(image_seed, 10)
        scale = tf.cast(tf.reduce_min(tf.shape(image)[:2]), tf.float32) / _REFERENCE_SIDE
        # Positive: the normal quantile of 0 is infinite.
        normal = tf.math.ndtri(tf.reshape(tf.maximum(numbers[2:], 2.0**-25), [4, 2]))
        displacements = _MAX_LENGTH * numbers[1] * scale * normal
        warp = thin_plate_warp(image, displacements=displacements)
        return tf.clip_by_value(warp, 0.0, 1.0)

    return apply_where(
        images,
        mask,
        lambda part, indices: map_images(warped, part, tf.gather(seed, indices)),
    )


def thin_plate_warp(image: tf.Tensor, *, displacements: tf.Tensor) -> tf.Tensor:
    """Displaces four inner points of an image, and all other pixels smoothly with them.

    The points are at one third and two thirds of each side, in row order. The displacement field
    is the thin-plate spline through them: affine + sum_k w_k r_k^2 log r_k with r_k the distance
    to displaced point k. Sampling is bilinear; the border is repeated.

    Args:
      image: float32 [H, W, 3].
      displacements: float32 [4, 2], (down, right) in pixels.

    Returns:
      float32 [H, W, 3].
    """
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    side = tf.reduce_min(size)
    thirds = tf.constant([[1, 1], [1, 2], [2, 1], [2, 2]], tf.float32) / 3.0
    pixels = tf.stack(tf.meshgrid(tf.range(size[0]), tf.range(size[1]), indexing="ij"))
    pixels = tf.reshape(pixels, [2, -1])  # [2, H, W] -> [2, H*W]
    # The spline does not depend on the unit of length; this one conditions the system well.
    points = tf.transpose(thirds * size + displacements) / side
    field = _thin_plate_spline(points, tf.transpose(displacements), pixels / side)
    result = tf.reshape(_bilinear(image, pixels - field), tf.shape(image))
    result.set_shape(image.shape)
    return result


def _thin_plate_spline(points: tf.Tensor, values: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
    # [2, K], [D, K], [2, Q] -> [D, Q]
    def affine_basis(x: tf.Tensor) -> tf.Tensor:
        return tf.concat([x, tf.ones_like(x[:1])], axis=0)  # [3, N]

    def radial_basis(x: tf.Tensor) -> tf.Tensor:
        offsets = x[:, None] - points[:, :, None]  # [2, K, N]
        squared = tf.reduce_sum(tf.square(offsets), axis=0)
        return 0.5 * tf.math.xlogy(squared, squared)  # [K, N]

    affine = affine_basis(points)
    system = tf.concat(
        [
            tf.concat([radial_basis(points), tf.transpose(affine)], axis=1),
            tf.concat([affine, tf.zeros([3, 3])], axis=1),
        ],
        axis=0,
    )
    weights = tf.linalg.solve(system, tf.transpose(tf.pad(values, [[0, 0], [0, 3]])))  # [K+3, D]
    basis = tf.concat([radial_basis(queries), affine_basis(queries)], axis=0)
    return tf.matmul(weights, basis, transpose_a=True)


def _bilinear(image: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    # [H, W, 3] at [2, Q] (row, column) -> [Q, 3]
    width = tf.shape(image)[1]
    last = (tf.shape(image)[:2] - 1)[:, None]
    positions = tf.clip_by_value(positions, 0.0, tf.cast(last, tf.float32))
    low = tf.cast(positions, tf.int32)
    top, left = tf.unstack(low)
    bottom, right = tf.unstack(tf.minimum(low + 1, last))
    fractions = tf.repeat((positions - tf.cast(low, tf.float32))[..., None], 3, axis=2)
    down, across = tf.unstack(fractions)  # [Q, 3]
    flat = tf.reshape(image, [-1, 3])

    def row(index: tf.Tensor) -> tf.Tensor:
        near, far = tf.gather(flat, index * width + left), tf.gather(flat, index * width + right)
        return near + across * (far - near)

    upper, lower = row(top), row(bottom)
    return upper + down * (lower - upper)
