"""How a recipe comes to a batch: all images at once, or one by one."""

from collections.abc import Callable

import tensorflow as tf

from supcon_tf.data.augment.dispatch import one_by_one

Function = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def as_one_batch(image: tf.Tensor, seed: int | tf.Tensor, function: Function) -> tf.Tensor:
    """Calls function(images [N, H, W, 3], seeds [N]) for image [..., H, W, 3] and seed [...]."""
    image = tf.convert_to_tensor(image)
    seeds = tf.reshape(tf.convert_to_tensor(seed, tf.int64), [-1])
    images = tf.reshape(image, [-1, *size_of(image), 3])
    result = tf.reshape(function(images, seeds), tf.shape(image))
    return with_shape(result, image.shape)


def with_shape(images: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """`tf.ensure_shape` where the shape is not known to be this one already.

    The operation would keep tf.data from merging what comes before it with what comes after.
    """
    return images if images.shape == shape else tf.ensure_shape(images, shape)


def size_of(images: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Height and width of images [..., H, W, 3]; as plain numbers where they are known."""
    height, width = images.shape[-3:-1]
    return (
        tf.shape(images)[-3] if height is None else height,
        tf.shape(images)[-2] if width is None else width,
    )


def on_images(image: tf.Tensor, seed: int | tf.Tensor, function: Function) -> tf.Tensor:
    """Calls function(image [H, W, 3], seed []) for each image of [..., H, W, 3] and seed [...]."""
    return as_one_batch(image, seed, lambda images, seeds: one_by_one(function, images, seeds))
