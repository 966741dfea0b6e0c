"""Crops, augmentations and preprocessing: the names `views.*` of gin files and scripts."""

from supcon_tf.data.augment import (
    augmix,
    autoaugment,
    identity,
    randaugment,
    simclr,
    stacked_randaugment,
)
from supcon_tf.data.augment.keras_layers import KerasLayers as keras_layers
from supcon_tf.data.crops import random_resized_crop
from supcon_tf.data.decode import decode
from supcon_tf.data.preprocessing import Augmentation, Preprocessing, eval_crop, scale, unscale
from supcon_tf.data.two_views import two_views

__all__ = [
    "Augmentation",
    "Preprocessing",
    "augmix",
    "autoaugment",
    "decode",
    "eval_crop",
    "identity",
    "keras_layers",
    "randaugment",
    "random_resized_crop",
    "scale",
    "simclr",
    "stacked_randaugment",
    "two_views",
    "unscale",
]
