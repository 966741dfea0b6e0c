"""Gaussian blur of SimCLR's augmentation (Chen et al. 2020, arXiv 2002.05709, appendix A)."""

import tensorflow as tf


def random_blur(image: tf.Tensor, *, seed: tf.Tensor, probability: float = 0.5) -> tf.Tensor:
    """`gaussian_blur` with sigma uniform in [0.1, 2] pixels, with this probability."""
    if probability == 0:
        return image
    coin, sigma = tf.unstack(tf.random.stateless_uniform([2], seed))

    def blurred() -> tf.Tensor:
        # The weights add up to one but for rounding, which would show above a white pixel.
        return tf.clip_by_value(gaussian_blur(image, sigma=0.1 + 1.9 * sigma), 0.0, 1.0)

    return tf.cond(coin < probability, blurred, lambda: image)


def gaussian_blur(image: tf.Tensor, *, sigma: tf.Tensor) -> tf.Tensor:
    """Blurs an image [H, W, 3] of any float range with a kernel of a tenth of its shorter side.

    The kernel has 2 * (side // 20) + 1 taps, so images below 20 px stay as they are. The border
    is mirrored; the released code pads with zeros, which darkens it.

    Args:
      image: float32 [H, W, 3].
      sigma: standard deviation in pixels, > 0.

    Returns:
      float32 [H, W, 3].
    """
    radius = tf.reduce_min(tf.shape(image)[:2]) // 20
    offsets = tf.cast(tf.range(-radius, radius + 1), tf.float32)
    kernel = tf.nn.softmax(-tf.square(offsets / sigma) / 2.0)
    result = image
    for _ in range(2):
        result = tf.transpose(_blur_columns(result, kernel, radius), [1, 0, 2])
    result.set_shape(image.shape)
    return result


def _blur_columns(image: tf.Tensor, kernel: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    # A column of one colour is a channel: with W*3 channels the depthwise convolution is
    # vectorised, and at 224 px ten times faster than with 3.
    height, width, _ = tf.unstack(tf.shape(image))
    channels = 3 * width
    padded = tf.pad(image, [[radius, radius], [0, 0], [0, 0]], "REFLECT")
    filters = tf.tile(kernel[:, None, None, None], [1, 1, channels, 1])
    blurred = tf.nn.depthwise_conv2d(
        tf.reshape(padded, [1, height + 2 * radius, 1, channels]), filters, [1, 1, 1, 1], "VALID"
    )
    return tf.reshape(blurred, [height, width, 3])
