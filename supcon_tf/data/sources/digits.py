"""scikit-learn's handwritten digits, which need no download."""

import numpy as np
import tensorflow as tf

from supcon_tf.data.sources.base import Source, with_validation
from supcon_tf.data.splits import IndexedSplit, hold_out


def digits(*, validation_share: float = 0.0, seed: int = 0) -> Source:
    """scikit-learn's 1,797 handwritten digits, upscaled from 8 x 8 grey to 32 x 32 x 3.

    A quarter of every class is held out, always the same one.

    Args:
      validation_share: of the training images to set aside, 0 for none.
      seed: of that choice.

    Example:
      >>> from supcon_tf.data import sources
      >>> source = sources.digits()
      >>> source.train.num_examples, source.test.num_examples, source.num_classes
      (1347, 450, 10)
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = tf.constant(data.images[..., None] / 16.0, tf.float32)
    upscaled = tf.image.resize(grey, (32, 32), method="bicubic")
    images = tf.cast(tf.round(tf.clip_by_value(upscaled, 0.0, 1.0) * 255.0), tf.uint8)
    everything = IndexedSplit(
        data.target.astype(np.int64),
        lambda number: tf.image.grayscale_to_rgb(tf.gather(images, number)),
        reads_batches=True,
        in_memory=True,
    )
    train, test = hold_out(everything.labels, 0.25, seed=0)
    names = tuple(str(name) for name in data.target_names)
    return with_validation(
        Source("digits", names, everything.take(train), everything.take(test)),
        validation_share,
        seed,
    )
