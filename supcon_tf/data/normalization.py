"""Normalization constants measured from images."""

import dataclasses

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.pipeline import evaluation_batches
from supcon_tf.data.preprocessing import Normalization, Preprocessing
from supcon_tf.data.splits import Split

# With 10,000 images, the standard error of the mean is a hundredth of the standard deviation
# between the images' means.
MAX_IMAGES = 10_000


def with_measured_normalization(preprocessing: Preprocessing, split: Split) -> Preprocessing:
    """Replaces normalization = "measure" by the constants measured on the split."""
    if preprocessing.normalization != "measure":
        return preprocessing
    return dataclasses.replace(preprocessing, normalization=measure(preprocessing, split))


def measure(preprocessing: Preprocessing, split: Split) -> Normalization:
    """Measures the mean and standard deviation of each channel on the scale [-1, 1].

    Uses all pixels of the evaluation crops of at most 10,000 images, chosen with a fixed seed.

    Args:
      preprocessing: its evaluation crop and size are used, its normalization is ignored.
      split: the training images.

    Returns:
      Three means and three standard deviations.
    """
    plain = dataclasses.replace(preprocessing, normalization=None)
    count = min(split.num_examples, MAX_IMAGES)
    images = split.shuffled(seed=0, start=0, stop=count)
    batches = evaluation_batches(images, preprocessing=plain, batch_size=64)
    sums, squares, pixels = np.zeros(3), np.zeros(3), 0
    for views, _ in tqdm(
        batches, "measuring normalization", -(-count // 64), leave=False, disable=None
    ):
        values = tf.cast(tf.reshape(views, [-1, 3]), tf.float64)
        sums += tf.reduce_sum(values, axis=0).numpy()
        squares += tf.reduce_sum(tf.square(values), axis=0).numpy()
        pixels += int(values.shape[0])
    means = sums / pixels
    deviations = np.sqrt(np.maximum(squares / pixels - means**2, 1e-6))
    return tuple(means.tolist()), tuple(deviations.tolist())
