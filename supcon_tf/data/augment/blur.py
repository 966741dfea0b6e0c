"""Gaussian blur of SimCLR's augmentation (Chen et al. 2020, arXiv 2002.05709, appendix A)."""

import tensorflow as tf

from supcon_tf.data.augment.dispatch import where_chosen
from supcon_tf.data.augment.rng import uniforms

_BLOCK = 32


def random_blur(
    images: tf.Tensor, *, seed: tf.Tensor, probability: float = 0.5, static_shapes: bool = False
) -> tf.Tensor:
    """`gaussian_blur` with sigma uniform in [0.1, 2] pixels, with this probability.

    Args:
      images: float32 [N, H, W, 3] in [0, 1].
      seed: int64 [N].
      probability: of a blur.
      static_shapes: blur all images, those not drawn with a kernel of one pixel.
    """
    if probability == 0:
        return images
    coin, sigma = tf.unstack(uniforms(seed, 2), axis=1)
    chosen, sigma = coin < probability, 0.1 + 1.9 * sigma
    if static_shapes:
        blurred = gaussian_blur(images, sigma=tf.where(chosen, sigma, 1e-3))
    else:
        blurred = where_chosen(
            images,
            chosen,
            lambda part, of_part: gaussian_blur(part, sigma=tf.gather(sigma, of_part)),
        )
    # The weights add up to one but for rounding, which would show above a white pixel.
    return tf.clip_by_value(blurred, 0.0, 1.0)


def gaussian_blur(images: tf.Tensor, *, sigma: tf.Tensor) -> tf.Tensor:
    """Blurs each image with a kernel of its own, of a tenth of its shorter side.

    The kernel has 2 * (side // 20) + 1 taps, so images below 20 px stay as they are. The border
    is mirrored; the released code pads with zeros, which darkens it.

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

    A block of 32 rows depends on 32 + 2 * radius; as a product of matrices, zeros and all, that is
    several times faster than a convolution of one channel.
    """
    count, size, _ = tf.unstack(tf.shape(rows))
    blocks = -(-size // _BLOCK)
    taken = _BLOCK + 2 * radius
    # Row numbers in each block, mirrored about the first and the last row.
    numbers = tf.range(blocks)[:, None] * _BLOCK + tf.range(taken) - radius
    numbers = tf.abs(numbers)
    numbers = tf.maximum(tf.minimum(numbers, 2 * (size - 1) - numbers), 0)
    parts = tf.gather(rows, tf.reshape(numbers, [-1]), axis=1)
    parts = tf.reshape(parts, [count, blocks, taken, -1])
    # weights[i, j] = kernel[j - i], and zero outside of the kernel.
    tap = tf.range(taken) - tf.range(_BLOCK)[:, None]
    inside = (tap >= 0) & (tap <= 2 * radius)
    weights = tf.gather(kernels, tf.where(inside, tap, 0), axis=1)
    weights = tf.where(inside, weights, 0.0)  # [N, 32, 32 + 2 * radius]
    blurred = tf.reshape(tf.matmul(weights[:, None], parts), [count, blocks * _BLOCK, -1])
    return blurred[:, :size]
