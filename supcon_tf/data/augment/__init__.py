"""Augmentations: pure functions of images and seeds, safe in a parallel `tf.data` map."""

from supcon_tf.data.augment.augmix_chains import augmix
from supcon_tf.data.augment.recipes import (
    autoaugment,
    identity,
    randaugment,
    simclr,
    stacked_randaugment,
)

__all__ = ["augmix", "autoaugment", "identity", "randaugment", "simclr", "stacked_randaugment"]
