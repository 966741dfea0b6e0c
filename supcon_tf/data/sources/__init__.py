"""Sources of images: digits, a folder, a table, arrays, a TFDS set, or a subset of one of these."""

from supcon_tf.data.sources.arrays import arrays
from supcon_tf.data.sources.base import Source
from supcon_tf.data.sources.digits import digits
from supcon_tf.data.sources.folder import folder
from supcon_tf.data.sources.subset import label_noise, subset
from supcon_tf.data.sources.table import table
from supcon_tf.data.sources.tfds import tfds

__all__ = ["Source", "arrays", "digits", "folder", "label_noise", "subset", "table", "tfds"]
