"""The handwritten digits of scikit-learn, which need no download."""

import numpy as np
import tensorflow as tf

from supcon_tf.data.sources.base import Source, split_off_test, with_validation
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import check_integer, check_number


def digits(*, validation_share: float = 0.0, seed: int = 0) -> Source:
    """scikit-learn's 1,797 handwritten digits, upscaled from 8 x 8 grey to 32 x 32 x 3.

    The test split is a fixed quarter of each class.

    Args:
      validation_share: share of the training images for the validation split; 0 for none.
      seed: seed of the validation split.

    Raises:
      UserError: a value out of range.

    Example:
      >>> from supcon_tf.data import sources
      >>> source = sources.digits()
      >>> source.train.num_examples, source.test.num_examples, source.num_classes
      (1347, 450, 10)
    """
    check_number("sources.digits.validation_share", validation_share, at_least=0, below=1)
    check_integer("sources.digits.seed", seed, at_least=0)
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = tf.constant(data.images[..., None] / 16.0, tf.float32)
    upscaled = tf.image.resize(grey, (32, 32), method="bicubic")
    images = tf.cast(tf.round(tf.clip_by_value(upscaled, 0.0, 1.0) * 255.0), tf.uint8)
    whole = IndexedSplit(
        data.target.astype(np.int64),
        lambda number: tf.image.grayscale_to_rgb(tf.gather(images, number)),
        reads_batches=True,
        in_memory=True,
    )
    names = tuple(str(name) for name in data.target_names)
    splits = split_off_test(whole, 0.25, seed=0)
    source = Source("digits", names, splits["train"], splits["test"])
    return with_validation(source, validation_share, seed)
