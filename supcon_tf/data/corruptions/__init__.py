"""Corrupted test images: made on the fly, or read from one of three published layouts."""

from supcon_tf.data.corruptions.arrays import arrays
from supcon_tf.data.corruptions.base import CorruptedImages
from supcon_tf.data.corruptions.folder import folder
from supcon_tf.data.corruptions.on_the_fly import on_the_fly
from supcon_tf.data.corruptions.tfds import tfds

__all__ = ["CorruptedImages", "arrays", "folder", "on_the_fly", "tfds"]
