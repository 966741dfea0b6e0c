"""Two random views of each image of a `tf.data.Dataset`, for `model.fit` in a script."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from supcon_tf.data.augment import simclr
from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.crops import random_resized_crop
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.errors import UserError, check_callable, check_integer


def two_views(
    batches: tf.data.Dataset,
    *,
    image_px: int,
    crop: Callable[..., tf.Tensor] = random_resized_crop,
    augmentation: Augmentation = simclr,
    seed: int = 0,
) -> tf.data.Dataset:
    """Replaces the images of each batch by two random views: crop and flip, augment, scale.

    Args:
      batches: of images or of tuples (images, labels, ...); images are uint8, or float32 in [0, 1],
        [B, H, W, 3].
      image_px: side of a view in pixels, >= 1.
      crop: `views.random_resized_crop`, with other options by `functools.partial`.
      augmentation: applied to the crops, such as `views.randaugment`.
      seed: the same seed gives the same views. Each epoch has others.

    Returns:
      A dataset of the same structure with float32 views [B, 2, image_px, image_px, 3] in [-1, 1],
      and prefetched batches.

    Raises:
      UserError: the elements are no batches of images, or an option is out of range.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> images, labels = tf.zeros([10, 40, 40, 3], tf.uint8), tf.range(10)
      >>> batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(5)
      >>> views.two_views(batches, image_px=32).element_spec[0].shape
      TensorShape([None, 2, 32, 32, 3])
    """
    seed = check_integer("seed", seed, at_least=0)
    check_callable("augmentation", augmentation, example="views.simclr")
    preprocessing = Preprocessing(image_px=image_px, crop=crop)
    spec = batches.element_spec if isinstance(batches, tf.data.Dataset) else batches
    image_spec = spec[0] if isinstance(spec, tuple) else spec
    if not isinstance(image_spec, tf.TensorSpec) or image_spec.shape.rank != 4:
        raise UserError(
            "batches must be a tf.data.Dataset of images [B, H, W, 3], or of (images, labels), got "
            f"{spec}: call .batch first"
        )

    def replace(element: Any, batch_seed: tf.Tensor) -> Any:
        images, *others = element if isinstance(element, tuple) else (element,)
        if images.dtype.is_floating:
            advice = "float images must be in [0, 1]: divide them by 255, or cast them to uint8"
            in_range = tf.debugging.assert_less(tf.reduce_max(images), 1.01, advice)
            with tf.control_dependencies([in_range]):
                images = tf.cast(images, tf.float32)
        numbers = tf.range(2 * tf.shape(images, tf.int64)[0])
        seeds = tf.reshape(fold_in(batch_seed, numbers), [-1, 2])
        views = preprocessing.training_views(images, augmentation, seed=seeds)
        return (views, *others) if isinstance(element, tuple) else views

    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    zipped = tf.data.Dataset.zip(batches, seeds)
    return zipped.map(replace, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
