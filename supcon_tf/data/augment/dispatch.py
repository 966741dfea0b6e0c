"""Sends each image of a batch through its own functions, and computes only those."""

from collections.abc import Callable, Sequence

import tensorflow as tf

# images [n, ...] and their indices in the batch, int32 [n] -> images [n, ...].
Branch = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# A batch this small is unrolled: partitioning and stitching would take longer than most branches.
_MAX_UNROLLED = 4


def dispatch(images: tf.Tensor, choices: tf.Tensor, branches: Sequence[Branch]) -> tf.Tensor:
    """Sends each image through the branches it chooses, one after another.

    Shapes inside depend on the choices, which XLA cannot compile.

    Args:
      images: [N, ...].
      choices: int32 [N, K], indices in `branches`: K steps for each image.
      branches: keep an image's shape and dtype.

    Returns:
      [N, ...].
    """
    if images.shape[0] is not None and images.shape[0] <= _MAX_UNROLLED:
        return tf.stack(
            [
                _dispatch_one(image, index, tf.unstack(choices[index], axis=0), branches)
                for index, image in enumerate(tf.unstack(images))
            ]
        )
    shape = tf.shape(images)
    for step in tf.unstack(choices, axis=1):
        parts = tf.dynamic_partition(images, step, len(branches))
        indices = tf.dynamic_partition(tf.range(shape[0]), step, len(branches))
        results = [
            tf.cond(tf.size(i) > 0, lambda f=f, p=part, i=i: f(p, i), lambda p=part: p)
            for part, i, f in zip(parts, indices, branches, strict=True)
        ]
        images = tf.reshape(tf.dynamic_stitch(indices, results), shape)
    return images


def apply_where(images: tf.Tensor, mask: tf.Tensor, function: Branch) -> tf.Tensor:
    """Applies the function to the images [N, ...] whose `mask`, bool [N], is true."""
    choices = tf.cast(mask, tf.int32)[:, None]
    return dispatch(images, choices, (lambda part, _: part, function))


def map_images(
    function: Callable[..., tf.Tensor], images: tf.Tensor, *others: tf.Tensor
) -> tf.Tensor:
    """Calls function(image [H, W, 3], ...) for each image [N, H, W, 3] and row of the others."""
    count = images.shape[0]
    if count is not None and count <= _MAX_UNROLLED:
        each = [tf.unstack(tensor, num=count) for tensor in (images, *others)]
        return tf.stack([function(*rows) for rows in zip(*each, strict=True)])
    return tf.map_fn(
        lambda rows: function(*rows), (images, *others), fn_output_signature=images.dtype
    )


def _dispatch_one(
    image: tf.Tensor, index: int, choices: list[tf.Tensor], branches: Sequence[Branch]
) -> tf.Tensor:
    image = image[None]
    for choice in choices:
        calls = [lambda f=f, image=image: f(image, tf.constant([index])) for f in branches]
        image = tf.ensure_shape(tf.switch_case(choice, calls), image.shape)
    return image[0]
