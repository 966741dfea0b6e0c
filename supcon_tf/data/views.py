"""From an image to a view: decode, crop and flip, distort, scale to the model's range.

The distortions are re-exported from `augment`, so that `views.simclr` is their name everywhere.
Images are float32 [H, W, 3] within [0, 1] between the steps and whatever the model takes at the
end; every random step takes its seed, int32 [2], and gives the same image for the same seed.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import tensorflow as tf

from supcon_tf.data.augment import (
    autoaugment,
    identity,
    randaugment,
    simclr,
    stacked_randaugment,
)

__all__ = [
    "Augmentation",
    "Preprocessing",
    "autoaugment",
    "decode",
    "eval_crop",
    "identity",
    "randaugment",
    "random_resized_crop",
    "scale",
    "simclr",
    "stacked_randaugment",
    "unscale",
]

Whitening = tuple[tuple[float, float, float], tuple[float, float, float]]
EvalCrop = Literal["resize_then_crop", "crop_then_resize", "crop_then_distort", "none"]


class Augmentation(Protocol):
    """What distorts a crop: image [H, W, 3] in [0, 1] and seed [2] -> the same shape and range."""

    def __call__(self, image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor: ...


def decode(image: tf.Tensor) -> tf.Tensor:
    """An encoded image (string scalar) or uint8 [H, W, 3] -> uint8 [H, W, 3].

    JPEG, PNG, BMP and the first frame of a GIF; grey becomes RGB.
    """
    if image.dtype == tf.string:
        image = tf.io.decode_image(image, channels=3, expand_animations=False)
        image.set_shape([None, None, 3])
    return image


def random_resized_crop(
    image: tf.Tensor,
    *,
    seed: tf.Tensor,
    size_px: int,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
    flip_probability: float = 0.5,
    num_tries: int = 10,
) -> tf.Tensor:
    """Crops a random part of the image, resizes it to a square, and mirrors it at random.

    The part's area is uniform within `area_range` of the image's, its aspect ratio (width /
    height) log-uniform within `aspect_range`, its place uniform. Where no try fits into the image
    the largest centre square is taken. Source: SimCLR (Chen et al. 2020), appendix A.

    Args:
      image: uint8 or float32 in [0, 1], [H, W, 3].
      seed: int32 [2].
      size_px: side of the result.
      area_range: smallest and largest share of the image's area.
      aspect_range: smallest and largest width / height.
      flip_probability: of mirroring left and right.
      num_tries: how many parts are drawn before falling back.

    Returns:
      float32 [size_px, size_px, 3] in [0, 1].

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> image = tf.zeros([40, 60, 3], tf.uint8)
      >>> views.random_resized_crop(image, seed=tf.constant([0, 1]), size_px=32).shape
      TensorShape([32, 32, 3])
    """
    seeds = tf.random.split(seed, 4)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    area = tf.cast(height * width, tf.float32)
    areas = area * tf.random.stateless_uniform([num_tries], seeds[0], *area_range)
    log_aspects = tf.random.stateless_uniform(
        [num_tries], seeds[1], math.log(aspect_range[0]), math.log(aspect_range[1])
    )
    aspects = tf.exp(log_aspects)
    widths = tf.maximum(tf.cast(tf.round(tf.sqrt(areas * aspects)), tf.int32), 1)
    heights = tf.maximum(tf.cast(tf.round(tf.sqrt(areas / aspects)), tf.int32), 1)
    fits = (widths <= width) & (heights <= height)
    found = tf.reduce_any(fits)
    chosen = tf.argmax(tf.cast(fits, tf.int32))
    side = tf.minimum(height, width)
    crop_height = tf.where(found, heights[chosen], side)
    crop_width = tf.where(found, widths[chosen], side)
    room = tf.stack([height - crop_height, width - crop_width])
    anywhere = tf.random.stateless_uniform([2], seeds[2]) * tf.cast(room + 1, tf.float32)
    # float32 may round up to room + 1 itself.
    corner = tf.where(found, tf.minimum(tf.cast(anywhere, tf.int32), room), room // 2)
    part = tf.slice(image, [corner[0], corner[1], 0], [crop_height, crop_width, 3])
    part = _resize(part, (size_px, size_px))
    mirrored = tf.random.stateless_uniform([], seeds[3]) < flip_probability
    return tf.cond(mirrored, lambda: tf.reverse(part, axis=[1]), lambda: part)


def eval_crop(
    image: tf.Tensor,
    *,
    size_px: int,
    method: EvalCrop = "resize_then_crop",
    padding_px: int | None = None,
) -> tf.Tensor:
    """The deterministic crop of evaluation and serving.

    Args:
      image: uint8, or float32 in [0, 1], [H, W, 3] or a batch [B, H, W, 3] of one size.
      size_px: side of the result.
      method: "resize_then_crop": short side to size + padding, then the centre;
        "crop_then_resize": the centre square whose side is size / (size + padding) of the short
        side, resized; "crop_then_distort": that share of each side, resized without keeping the
        aspect; "none": the whole image, resized where it has another size.
      padding_px: None for size_px / 7, which is 32 pixels at 224.

    Returns:
      float32 [size_px, size_px, 3] in [0, 1], with the batch axis if there was one.

    Raises:
      ValueError: an unknown method.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> views.eval_crop(tf.zeros([300, 500, 3], tf.uint8), size_px=224).shape
      TensorShape([224, 224, 3])
    """
    if method not in get_args(EvalCrop):
        raise ValueError(f"method must be one of {get_args(EvalCrop)}, got {method!r}")
    padding = round(size_px / 7) if padding_px is None else padding_px
    full = size_px + padding
    height, width = tf.shape(image)[-3], tf.shape(image)[-2]
    short = tf.minimum(height, width)
    if method == "resize_then_crop":
        new_height = tf.maximum(full * height // short, full)
        new_width = tf.maximum(full * width // short, full)
        return _centre(_resize(image, (new_height, new_width)), size_px, size_px)
    if method == "crop_then_resize":
        side = tf.maximum(size_px * short // full, 1)
        image = _centre(image, side, side)
    elif method == "crop_then_distort":
        image = _centre(
            image,
            tf.maximum(size_px * height // full, 1),
            tf.maximum(size_px * width // full, 1),
        )
    return _resize(image, (size_px, size_px))


def scale(image: tf.Tensor, *, whitening: Whitening | None = None) -> tf.Tensor:
    """[0, 1] -> [-1, 1], and from there (image - mean) / deviation where `whitening` gives both.

    Args:
      image: float32 [..., 3] in [0, 1].
      whitening: three means and three standard deviations on the scale [-1, 1].

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> views.scale(tf.constant([[[0., 0.5, 1.]]])).numpy().tolist()
      [[[-1.0, 0.0, 1.0]]]
    """
    image = image * 2.0 - 1.0
    if whitening is None:
        return image
    mean, deviation = whitening
    return (image - tf.constant(mean)) / tf.constant(deviation)


def unscale(image: tf.Tensor, *, whitening: Whitening | None = None) -> tf.Tensor:
    """The way back from `scale`, clipped to [0, 1]: for looking at what the model sees."""
    if whitening is not None:
        mean, deviation = whitening
        image = image * tf.constant(deviation) + tf.constant(mean)
    return tf.clip_by_value((image + 1.0) / 2.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What stands before and after an augmentation, the same in training, evaluation and serving.

    Args:
      image_px: side of what the model takes, in pixels.
      crop: image, seed, size_px -> [image_px, image_px, 3], as `random_resized_crop`.
      eval_crop: image, size_px -> [image_px, image_px, 3], as `eval_crop`.
      whitening: means and deviations on the scale [-1, 1], or None.

    Raises:
      ValueError: image_px < 1.
    """

    image_px: int
    crop: Callable[..., tf.Tensor] = random_resized_crop
    eval_crop: Callable[..., tf.Tensor] = eval_crop
    whitening: Whitening | None = None

    def __post_init__(self) -> None:
        if self.image_px < 1:
            raise ValueError(f"image_px must be >= 1, got {self.image_px}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of a view."""
        return (self.image_px, self.image_px, 3)

    def training_view(
        self, image: tf.Tensor, augmentation: Augmentation, *, seed: tf.Tensor
    ) -> tf.Tensor:
        """A random view of a decoded image [H, W, 3]: crop, augmentation, scale."""
        crop_seed, augmentation_seed = tf.unstack(tf.random.split(seed, 2))
        view = self.crop(image, seed=crop_seed, size_px=self.image_px)
        view = augmentation(view, seed=augmentation_seed)
        return tf.ensure_shape(scale(view, whitening=self.whitening), self.image_shape)

    def evaluation_view(self, image: tf.Tensor) -> tf.Tensor:
        """The one view of a decoded image [H, W, 3] or a batch of one size: crop, scale."""
        return scale(self.eval_crop(image, size_px=self.image_px), whitening=self.whitening)


def _resize(image: tf.Tensor, size: tuple[int | tf.Tensor, int | tf.Tensor]) -> tf.Tensor:
    """Bilinear, averaging where it shrinks; float32 in [0, 1] from uint8 or floats."""
    if image.dtype != tf.float32:
        image = tf.image.convert_image_dtype(image, tf.float32)
    image = tf.image.resize(image, size, antialias=True)
    return tf.clip_by_value(image, 0.0, 1.0)


def _centre(image: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    top = (tf.shape(image)[-3] - height) // 2
    left = (tf.shape(image)[-2] - width) // 2
    return image[..., top : top + height, left : left + width, :]
