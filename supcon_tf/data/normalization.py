"""Normalization constants measured from images."""

import dataclasses

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.pipeline import evaluation_batches
from supcon_tf.data.preprocessing import Normalization, Preprocessing
from supcon_tf.data.splits import Split

# Enough: with 10,000 images of any size, the standard error of a mean is a hundredth of the
# deviation between the means of images.
MAX_IMAGES = 10_000


def with_measured_normalization(preprocessing: Preprocessing, split: Split) -> Preprocessing:
    """The same, with the measured constants in the place of normalization = "measure"."""
    if preprocessing.normalization != "measure":
        return preprocessing
    return dataclasses.replace(preprocessing, normalization=measure(preprocessing, split))


def measure(preprocessing: Preprocessing, split: Split) -> Normalization:
    """Mean and standard deviation of each channel on the scale [-1, 1].

    Over all pixels of the evaluation crops of at most 10,000 images, drawn from a fixed seed.

    Args:
      preprocessing: its crop and size; its normalization is not looked at.
      split: the training images.

    Returns:
      Three means and three deviations.
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
