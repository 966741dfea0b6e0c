"""Small pictures of images for the report."""

import logging
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from supcon_tf.data.decode import decode

THUMBNAIL_PX = 48


def thumbnails(images: Iterable[tf.Tensor], *, side_px: int = THUMBNAIL_PX) -> np.ndarray:
    """A `thumbnail` of each image, uint8 [n, side_px, side_px, 3].

    An image that cannot be drawn is logged and gets a black square, as a picture for the report
    must not end a run.
    """
    pictures = []
    for number, image in enumerate(images):
        try:
            pictures.append(thumbnail(image, side_px=side_px))
        except Exception:
            logging.getLogger(__name__).exception("no thumbnail of image %d", number)
            pictures.append(np.zeros((side_px, side_px, 3), np.uint8))
    return np.stack(pictures)


def thumbnail(image: tf.Tensor, *, side_px: int = THUMBNAIL_PX) -> np.ndarray:
    """The whole image in a square, with its aspect ratio kept and black padding.

    Args:
      image: encoded (string scalar) or uint8 [H, W, C]; see `rgb` for C other than 3.
      side_px: side of the square.

    Returns:
      uint8 [side_px, side_px, 3].
    """
    small = resize_longer_side(decode(image), side_px)
    height, width = small.shape[:2]
    top, left = (side_px - height) // 2, (side_px - width) // 2
    padding = ((top, side_px - height - top), (left, side_px - width - left), (0, 0))
    return np.pad(small, padding)


def resize_longer_side(image: tf.Tensor | np.ndarray, side_px: int) -> np.ndarray:
    """Resizes uint8 [H, W, C] to uint8 [h, w, 3] with max(h, w) = side_px and h, w >= 1."""
    height, width = image.shape[:2]
    longer = max(height, width)
    size = [max(1, side * side_px // longer) for side in (height, width)]
    resized = tf.image.resize(tf.cast(rgb(image), tf.float32), size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8).numpy()


def rgb(image: tf.Tensor | np.ndarray) -> tf.Tensor:
    """[..., C] -> [..., 3]: grey for one channel, no blue for two, the first three of more."""
    image = tf.convert_to_tensor(image)
    channels = image.shape[-1]
    if channels == 1:
        return tf.repeat(image, 3, axis=-1)
    if channels == 2:
        return tf.concat([image, tf.zeros_like(image[..., :1])], axis=-1)
    return image[..., :3]
