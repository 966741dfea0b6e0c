"""Gaussian blur of SimCLR's augmentation (Chen et al. 2020, arXiv 2002.05709, appendix A)."""

import tensorflow as tf

from supcon_tf.data.augment.dispatch import apply_where
from supcon_tf.data.augment.rng import uniforms

_BLOCK = 32  # rows


def random_blur(
    images: tf.Tensor, *, seed: tf.Tensor, probability: float = 0.5, static_shapes: bool = False
) -> tf.Tensor:
    """Applies `gaussian_blur` with this probability, sigma uniform in [0.1, 2] pixels.

    Args:
      images: float32 [N, H, W, 3] in [0, 1].
      seed: int64 [N].
      probability: probability of a blur, 0 to 1.
      static_shapes: blur every image, those that should stay sharp with a sigma near 0.
    """
    if probability == 0:
        return images
    number, sigma = tf.unstack(uniforms(seed, 2), axis=1)
    mask, sigma = number < probability, 0.1 + 1.9 * sigma
    if static_shapes:
        blurred = gaussian_blur(images, sigma=tf.where(mask, sigma, 1e-3))
    else:
        blurred = apply_where(
            images,
            mask,
            lambda part, indices: gaussian_blur(part, sigma=tf.gather(sigma, indices)),
        )
    # Rounding may bring the sum of the weights above 1.
    return tf.clip_by_value(blurred, 0.0, 1.0)


def gaussian_blur(images: tf.Tensor, *, sigma: tf.Tensor) -> tf.Tensor:
    """Blurs each image with a Gaussian kernel about a tenth of its shorter side wide.

    The kernel has 2 * (side // 20) + 1 taps, so images below 20 px do not change. The border is
    mirrored. The released SupCon code pads images on the scale [-1, 1] with zeros instead, which
    blends mid-grey into the border.

    Args:
      images: float32 [N, H, W, 3] of any range.
      sigma: standard deviations in pixels, float32 [N], > 0.

    Returns:
      float32 [N, H, W, 3].
    """
    count, height, width, _ = tf.unstack(tf.shape(images))
    radius = tf.minimum(height, width) // 20
    offsets = tf.cast(tf.range(-radius, radius + 1), tf.float32)
    kernels = tf.nn.softmax(-tf.square(offsets / sigma[:, None]) / 2.0)  # [N, taps]
    down = _blur_rows(tf.reshape(images, [count, height, -1]), kernels, radius)
    turned = tf.transpose(tf.reshape(down, [count, height, width, 3]), [0, 2, 1, 3])
    across = _blur_rows(tf.reshape(turned, [count, width, -1]), kernels, radius)
    blurred = tf.transpose(tf.reshape(across, [count, width, height, 3]), [0, 2, 1, 3])
    return tf.ensure_shape(blurred, images.shape)


def _blur_rows(rows: tf.Tensor, kernels: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """Blurs [N, R, C] along R with kernels [N, 2 * radius + 1], mirrored at both ends.

    A block of 32 output rows depends on 32 + 2 * radius input rows. A banded matrix product is
    several times faster here than a depthwise convolution.
    """
    count, size, _ = tf.unstack(tf.shape(rows))
    blocks = -(-size // _BLOCK)
    block_inputs = _BLOCK + 2 * radius
    # Input rows of each block, mirrored about the first and the last row.
    indices = tf.range(blocks)[:, None] * _BLOCK + tf.range(block_inputs) - radius
    indices = tf.abs(indices)
    indices = tf.maximum(tf.minimum(indices, 2 * (size - 1) - indices), 0)
    parts = tf.gather(rows, tf.reshape(indices, [-1]), axis=1)
    parts = tf.reshape(parts, [count, blocks, block_inputs, -1])
    # weights[i, j] = kernel[j - i] inside the kernel, else 0.
    tap = tf.range(block_inputs) - tf.range(_BLOCK)[:, None]
    inside = (tap >= 0) & (tap <= 2 * radius)
    weights = tf.gather(kernels, tf.where(inside, tap, 0), axis=1)
    weights = tf.where(inside, weights, 0.0)  # [N, 32, 32 + 2 * radius]
    blurred = tf.reshape(tf.matmul(weights[:, None], parts), [count, blocks * _BLOCK, -1])
    return blurred[:, :size]
