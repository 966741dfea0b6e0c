"""Labelled images: digits, a TFDS data set, a folder, a table, or a subset of one of these."""

from supcon_tf.data.sources.base import Source
from supcon_tf.data.sources.digits import digits
from supcon_tf.data.sources.folder import folder
from supcon_tf.data.sources.subset import label_noise, subset
from supcon_tf.data.sources.table import table
from supcon_tf.data.sources.tfds import tfds

__all__ = ["Source", "digits", "folder", "label_noise", "subset", "table", "tfds"]
