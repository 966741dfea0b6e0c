"""From an image to a view: decode, crop and flip, distort, scale to the model's range.

The distortions are re-exported from `augment`, so that `views.simclr` is their name everywhere.
Images are float32 [..., H, W, 3] between the steps, in [0, 1] but for rounding, and whatever the
model takes at the end; every random step takes an integer seed for each image, and gives the same
image for the same seed, alone or in a batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import numpy as np
import tensorflow as tf

from supcon_tf.data.augment.batching import with_shape
from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.crops import random_resized_crop
from supcon_tf.data.resampling import resize
from supcon_tf.errors import UserError

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
EvalCrop = Literal["resize_then_crop", "crop_then_resize", "crop_then_distort", "none"]


class Augmentation(Protocol):
    """What distorts crops: image [..., H, W, 3] in [0, 1] and seed [...] -> the same kind."""

    def __call__(self, image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor: ...


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
      float32 [size_px, size_px, 3] in [0, 1] but for rounding, with the batch axis if there was
      one.

    Raises:
      UserError: an unknown method.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> views.eval_crop(tf.zeros([300, 500, 3], tf.uint8), size_px=224).shape
      TensorShape([224, 224, 3])
    """
    if method not in get_args(EvalCrop):
        raise UserError(f"method must be one of {get_args(EvalCrop)}, got {method!r}")
    padding = round(size_px / 7) if padding_px is None else padding_px
    full = size_px + padding
    height, width = tf.shape(image)[-3], tf.shape(image)[-2]
    short = tf.minimum(height, width)
    if method == "resize_then_crop":
        # What a very long side has beyond the crop would only be resized for nothing.
        image = _centre(image, tf.minimum(height, 4 * width), tf.minimum(width, 4 * height))
        height, width = tf.shape(image)[-3], tf.shape(image)[-2]
        new_height = tf.maximum(full * height // short, full)
        new_width = tf.maximum(full * width // short, full)
        return _centre(resize(image, (new_height, new_width)), size_px, size_px)
    if method == "crop_then_resize":
        side = tf.maximum(size_px * short // full, 1)
        image = _centre(image, side, side)
    elif method == "crop_then_distort":
        image = _centre(
            image,
            tf.maximum(size_px * height // full, 1),
            tf.maximum(size_px * width // full, 1),
        )
    return resize(image, (size_px, size_px))


def scale(image: tf.Tensor, *, normalization: Normalization | None = None) -> tf.Tensor:
    """[0, 1] -> [-1, 1], then (image - mean) / deviation where `normalization` gives both.

    Args:
      image: float32 [..., H, W, 3] in [0, 1].
      normalization: three means and three standard deviations on the scale [-1, 1].

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> views.scale(tf.constant([[[0., 0.5, 1.]]])).numpy().tolist()
      [[[-1.0, 0.0, 1.0]]]
    """
    if normalization is None:
        return image * 2.0 - 1.0
    mean, deviation = np.array(normalization, np.float32)
    # Along rows of W * 3 numbers, as TensorFlow is slow along an innermost axis of 3.
    width = tf.shape(image)[-2]
    rows = tf.reshape(image, tf.concat([tf.shape(image)[:-2], [3 * width]], axis=0))
    rows = rows * tf.tile(2.0 / deviation, [width]) - tf.tile((1.0 + mean) / deviation, [width])
    return with_shape(tf.reshape(rows, tf.shape(image)), image.shape)


def unscale(image: tf.Tensor, *, normalization: Normalization | None = None) -> tf.Tensor:
    """The way back from `scale`, clipped to [0, 1]: for looking at what the model sees."""
    if normalization is not None:
        mean, deviation = normalization
        image = image * tf.constant(deviation) + tf.constant(mean)
    return tf.clip_by_value((image + 1.0) / 2.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What stands before and after an augmentation, the same in training, evaluation and serving.

    Args:
      image_px: side of what the model takes, in pixels.
      crop: image or batch, seed, size_px -> crops, as `random_resized_crop`.
      eval_crop: image, size_px -> [image_px, image_px, 3], as `eval_crop`.
      normalization: means and deviations on the scale [-1, 1]; None for none; "measure" for those
        of the training images, which `with_measured_normalization` fills in.

    Raises:
      UserError: image_px < 1, or a normalization that is none of these.
    """

    image_px: int
    crop: Callable[..., tf.Tensor] = random_resized_crop
    eval_crop: Callable[..., tf.Tensor] = eval_crop
    normalization: Normalization | Literal["measure"] | None = None

    def __post_init__(self) -> None:
        if self.image_px < 1:
            raise UserError(f"image_px must be >= 1, got {self.image_px}")
        if self.normalization is None or self.normalization == "measure":
            return
        try:
            constants = np.array(self.normalization, np.float64)
            fits = constants.shape == (2, 3) and bool((constants[1] > 0).all())
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise UserError(
                'normalization must be None, "measure", or three means and three deviations > 0, '
                f"got {self.normalization!r}"
            )
        means, deviations = constants.tolist()
        object.__setattr__(self, "normalization", (tuple(means), tuple(deviations)))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of a view."""
        return (self.image_px, self.image_px, 3)

    def training_crops(self, image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
        """Random crops as `crop` makes them, with the axes of the seed in front."""
        crops = self.crop(image, seed=fold_in(seed, 0), size_px=self.image_px)
        return with_shape(crops, tf.TensorShape([*seed.shape, *self.image_shape]))

    def distorted(
        self, crops: tf.Tensor, augmentation: Augmentation, *, seed: tf.Tensor
    ) -> tf.Tensor:
        """Views for the model from crops and the seeds that these were made with."""
        views = augmentation(crops, seed=fold_in(seed, 1))
        return scale(views, normalization=self._constants)

    def training_views(
        self, image: tf.Tensor, augmentation: Augmentation, *, seed: tf.Tensor
    ) -> tf.Tensor:
        """Random views of an image or a batch: crop, augmentation, scale.

        Args:
          image: encoded (string scalar), or pixels [H, W, 3] or [B, H, W, 3].
          augmentation: what distorts the crops.
          seed: int64 [...], as `random_resized_crop` takes it.

        Returns:
          float32 [..., image_px, image_px, 3], with the axes of the seed in front.
        """
        return self.distorted(self.training_crops(image, seed=seed), augmentation, seed=seed)

    def evaluation_view(self, image: tf.Tensor) -> tf.Tensor:
        """The one view of a decoded image [H, W, 3] or a batch of one size: crop, scale."""
        crops = self.eval_crop(image, size_px=self.image_px)
        return scale(crops, normalization=self._constants)

    def picture(self, view: tf.Tensor) -> tf.Tensor:
        """What the model sees, back in [0, 1]."""
        return unscale(view, normalization=self._constants)

    @property
    def _constants(self) -> Normalization | None:
        if isinstance(self.normalization, str):
            raise UserError(
                'normalization = "measure" has not been measured: a stage does, or '
                "normalization.with_measured_normalization"
            )
        return self.normalization


def _centre(image: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    top = (tf.shape(image)[-3] - height) // 2
    left = (tf.shape(image)[-2] - width) // 2
    return image[..., top : top + height, left : left + width, :]
