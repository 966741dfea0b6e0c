"""Applies an augmentation to images with any number of leading axes."""

from collections.abc import Callable

import tensorflow as tf

from supcon_tf.data.augment.dispatch import map_images
from supcon_tf.errors import UserError

Function = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def apply_batched(image: tf.Tensor, seed: int | tf.Tensor, function: Function) -> tf.Tensor:
    """Calls function(images [N, H, W, 3], seeds [N]) for image [..., H, W, 3] and seed [...].

    Raises:
      UserError: the image is not float32 [..., H, W, 3], or the seed has another shape than [...].
    """
    image, seed = tf.convert_to_tensor(image), tf.convert_to_tensor(seed, tf.int64)
    if image.dtype != tf.float32 or (image.shape.rank or 0) < 3 or image.shape[-1] not in (3, None):
        raise UserError(
            "an augmentation needs images float32 [..., H, W, 3] in [0, 1], got "
            f"{image.dtype.name} {image.shape}"
        )
    if not seed.shape.is_compatible_with(image.shape[:-3]):
        raise UserError(
            "an augmentation needs one seed for each image [H, W, 3], got seeds of shape "
            f"{seed.shape} and images of shape {image.shape}"
        )
    images = tf.reshape(image, [-1, *image_size(image), 3])
    result = tf.reshape(function(images, tf.reshape(seed, [-1])), tf.shape(image))
    return ensure_shape(result, image.shape)


def apply_per_image(image: tf.Tensor, seed: int | tf.Tensor, function: Function) -> tf.Tensor:
    """Calls function(image [H, W, 3], seed []) for each image of [..., H, W, 3] and seed [...]."""
    return apply_batched(image, seed, lambda images, seeds: map_images(function, images, seeds))


def ensure_shape(images: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """`tf.ensure_shape`, only where the static shape differs.

    The operation would keep tf.data from fusing its neighbours.
    """
    return images if images.shape == shape else tf.ensure_shape(images, shape)


def image_size(images: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Height and width of images [..., H, W, 3], as Python integers where they are static."""
    height, width = images.shape[-3:-1]
    return (
        tf.shape(images)[-3] if height is None else height,
        tf.shape(images)[-2] if width is None else width,
    )
