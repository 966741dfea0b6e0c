"""Augmentation recipes: pure functions of an image and a seed, for `tf.data`'s parallel map."""

from supcon_tf.data.augment.recipes import (
    autoaugment,
    identity,
    randaugment,
    simclr,
    stacked_randaugment,
)

__all__ = ["autoaugment", "identity", "randaugment", "simclr", "stacked_randaugment"]
