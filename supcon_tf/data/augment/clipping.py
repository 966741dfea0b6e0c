"""Images stay within [0, 1]."""

import tensorflow as tf


def clip(images: tf.Tensor) -> tf.Tensor:
    """`tf.clip_by_value(images, 0, 1)` in one pass over the pixels instead of two."""
    return tf.raw_ops.ClipByValue(t=images, clip_value_min=0.0, clip_value_max=1.0)
