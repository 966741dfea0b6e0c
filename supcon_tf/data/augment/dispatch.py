"""A batch of images of which each goes its own way, without doing the work of the other ways."""

from collections.abc import Callable, Sequence

import tensorflow as tf

# The images [n, ...] of a group and their numbers in the batch, int32 [n] -> as many images.
OfGroup = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# So few images are taken one by one: at the sizes that come in such numbers, to sort a batch into
# groups and back takes longer than most of what is done with them.
_FEW = 4


def by_group(images: tf.Tensor, groups: tf.Tensor, functions: Sequence[OfGroup]) -> tf.Tensor:
    """Sends each image through the functions of its groups, in their order.

    Shapes within depend on the draw, which XLA cannot compile.

    Args:
      images: [N, ...].
      groups: int32 [N, K], numbers in 0 ... len(functions) - 1: K steps for each image.
      functions: keep the shape and the type of an image.
    """
    if images.shape[0] is not None and images.shape[0] <= _FEW:
        return tf.stack(
            [
                _alone(image, number, tf.unstack(groups[number], axis=0), functions)
                for number, image in enumerate(tf.unstack(images))
            ]
        )
    shape = tf.shape(images)
    for step in tf.unstack(groups, axis=1):
        parts = tf.dynamic_partition(images, step, len(functions))
        numbers = tf.dynamic_partition(tf.range(shape[0]), step, len(functions))
        results = [
            tf.cond(tf.size(of_part) > 0, lambda f=f, p=part, n=of_part: f(p, n), lambda p=part: p)
            for part, of_part, f in zip(parts, numbers, functions, strict=True)
        ]
        images = tf.reshape(tf.dynamic_stitch(numbers, results), shape)
    return images


def where_chosen(images: tf.Tensor, chosen: tf.Tensor, function: OfGroup) -> tf.Tensor:
    """Sends the images [N, ...] for which `chosen`, bool [N], is true through the function."""
    groups = tf.cast(chosen, tf.int32)[:, None]
    return by_group(images, groups, (lambda part, _: part, function))


def one_by_one(
    function: Callable[..., tf.Tensor], images: tf.Tensor, *others: tf.Tensor
) -> tf.Tensor:
    """Calls function(image [H, W, 3], ...) for each image [N, H, W, 3] and its part of others."""
    count = images.shape[0]
    if count is not None and count <= _FEW:
        each = [tf.unstack(tensor, num=count) for tensor in (images, *others)]
        return tf.stack([function(*parts) for parts in zip(*each, strict=True)])
    return tf.map_fn(
        lambda parts: function(*parts), (images, *others), fn_output_signature=images.dtype
    )


def _alone(
    image: tf.Tensor, number: int, groups: list[tf.Tensor], functions: Sequence[OfGroup]
) -> tf.Tensor:
    image = image[None]
    for group in groups:
        branches = [lambda f=f, image=image: f(image, tf.constant([number])) for f in functions]
        image = tf.ensure_shape(tf.switch_case(group, branches), image.shape)
    return image[0]
