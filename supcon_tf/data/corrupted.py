"""Where corrupted images come from: made on the fly, or one of three published forms."""

from supcon_tf.data.corrupted_arrays import arrays
from supcon_tf.data.corrupted_folder import folder
from supcon_tf.data.corrupted_images import CorruptedImages
from supcon_tf.data.corrupted_on_the_fly import on_the_fly
from supcon_tf.data.corrupted_tfds import tfds

__all__ = ["CorruptedImages", "arrays", "folder", "on_the_fly", "tfds"]
