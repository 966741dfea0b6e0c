"""From an image to a view: crop and flip, augment, scale to the model's range.

Between the steps images are float32 [..., H, W, 3] in [0, 1] up to rounding. Every random step
takes one integer seed per image; the same seed gives the same image, alone or in a batch.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import numpy as np
import tensorflow as tf

from supcon_tf.data.augment.batching import ensure_shape
from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.crops import check_channels, random_resized_crop
from supcon_tf.data.resampling import resize
from supcon_tf.errors import UserError, check_callable, check_choice, check_integer

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
EvalCrop = Literal["resize_then_crop", "crop_then_resize", "crop_then_distort", "none"]


class Augmentation(Protocol):
    """Augments crops: image float32 [..., H, W, 3] in [0, 1], seed int64 [...] -> like image."""

    def __call__(self, image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor: ...


def instantiate(augmentation: Augmentation | type[Augmentation]) -> Augmentation:
    """Instantiates an augmentation class such as `views.keras_layers`, given without brackets.

    Raises:
      UserError: not a function or class, or the options of the class or its layers are wrong.
    """
    check_callable("augmentation", augmentation, example="@views.simclr")
    if not inspect.isclass(augmentation):
        return augmentation
    try:
        return augmentation()
    except UserError:
        raise
    except (TypeError, ValueError) as error:  # Raised by a layer's constructor.
        raise UserError(f"augmentation: {str(error).splitlines()[0]}") from error


def eval_crop(
    image: tf.Tensor,
    *,
    size_px: int,
    method: EvalCrop = "resize_then_crop",
    padding_px: int | None = None,
) -> tf.Tensor:
    """The deterministic crop of evaluation and serving.

    The methods follow the released SupCon code. Where the margin is odd, this crop is half a
    pixel above and left of the centre, that code's half a pixel below and right. That code also
    resizes without halving first and truncates to uint8.

    Args:
      image: uint8, or float32 in [0, 1], [H, W, 3] or a batch [B, H, W, 3].
      size_px: side of the result, >= 1.
      method: "resize_then_crop" resizes the short side to size + padding and takes the centre.
        "crop_then_resize" takes the centre square of size / (size + padding) of the short side
        and resizes it. "crop_then_distort" takes that fraction of each side and resizes it without
        keeping the aspect ratio. "none" resizes the whole image.
      padding_px: >= 0; None for size_px / 7, which is 32 pixels at 224.

    Returns:
      float32 [size_px, size_px, 3] or [B, size_px, size_px, 3] in [0, 1] up to rounding.

    Raises:
      UserError: unknown method, or a size or padding out of range.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> views.eval_crop(tf.zeros([300, 500, 3], tf.uint8), size_px=224).shape
      TensorShape([224, 224, 3])
    """
    check_channels(image)
    check_integer("size_px", size_px, at_least=1)
    check_choice("method", method, get_args(EvalCrop))
    padding = round(size_px / 7) if padding_px is None else padding_px
    check_integer("padding_px", padding, at_least=0)
    full = size_px + padding
    height, width = tf.shape(image)[-3], tf.shape(image)[-2]
    short = tf.minimum(height, width)
    if method == "resize_then_crop":
        # Cuts very long sides, so that pixels outside the crop are not resized.
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
    """Scales [0, 1] to [-1, 1], then to (image - mean) / deviation if a normalization is given.

    Args:
      image: float32 [..., H, W, 3] in [0, 1].
      normalization: three means and three standard deviations on the scale [-1, 1].

    Returns:
      float32 [..., H, W, 3].

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import views
      >>> views.scale(tf.constant([[[0., 0.5, 1.]]])).numpy().tolist()
      [[[-1.0, 0.0, 1.0]]]
    """
    if normalization is None:
        return image * 2.0 - 1.0
    mean, deviation = np.array(normalization, np.float32)
    # [..., W, 3] -> [..., W*3]: TensorFlow is slow along an innermost axis of 3.
    width = tf.shape(image)[-2]
    rows = tf.reshape(image, tf.concat([tf.shape(image)[:-2], [3 * width]], axis=0))
    rows = rows * tf.tile(2.0 / deviation, [width]) - tf.tile((1.0 + mean) / deviation, [width])
    return ensure_shape(tf.reshape(rows, tf.shape(image)), image.shape)


def unscale(image: tf.Tensor, *, normalization: Normalization | None = None) -> tf.Tensor:
    """The inverse of `scale`, clipped to [0, 1] for display."""
    if normalization is not None:
        mean, deviation = normalization
        image = image * tf.constant(deviation) + tf.constant(mean)
    return tf.clip_by_value((image + 1.0) / 2.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The steps before and after augmentation, the same in training, evaluation and serving.

    Args:
      image_px: side of the model's input, in pixels, >= 1.
      crop: training crop: image or batch, seed, size_px -> crops, as `random_resized_crop`.
      eval_crop: evaluation crop: image or batch, size_px -> crop, as `eval_crop`.
      normalization: three means and three standard deviations on the scale [-1, 1], None, or
        "measure" to measure them on the training images, as the stages and
        `with_measured_normalization` do.

    Raises:
      UserError: an option has a wrong value.
    """

    image_px: int
    crop: Callable[..., tf.Tensor] = random_resized_crop
    eval_crop: Callable[..., tf.Tensor] = eval_crop
    normalization: Normalization | Literal["measure"] | None = None
    _instances: dict = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_integer("image_px", self.image_px, at_least=1)
        check_callable("crop", self.crop, example="@views.random_resized_crop")
        check_callable("eval_crop", self.eval_crop, example="@views.eval_crop")
        if self.normalization is None or self.normalization == "measure":
            return
        try:
            constants = np.array(self.normalization, np.float64)
            fits = constants.shape == (2, 3) and bool(np.all(constants[1] > 0))
            fits = fits and bool(np.isfinite(constants).all())
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise UserError(
                'normalization must be None, "measure", or three means and three deviations > 0 '
                "such as ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)), got "
                f"{self.normalization!r}"
            )
        means, deviations = constants.tolist()
        object.__setattr__(self, "normalization", (tuple(means), tuple(deviations)))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of a view, [H, W, C]."""
        return (self.image_px, self.image_px, 3)

    def training_crops(self, image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
        """Random crops, float32 [..., image_px, image_px, 3] with the leading axes of the seed."""
        crops = self.crop(image, seed=fold_in(seed, 0), size_px=self.image_px)
        return ensure_shape(crops, tf.TensorShape([*seed.shape, *self.image_shape]))

    def augment_and_scale(
        self, crops: tf.Tensor, augmentation: Augmentation, *, seed: tf.Tensor
    ) -> tf.Tensor:
        """Augments and scales crops; `seed` is the one the crops were made with."""
        if augmentation not in self._instances:
            with tf.init_scope():  # A function being traced may not create variables.
                self._instances[augmentation] = instantiate(augmentation)
        views = self._instances[augmentation](crops, seed=fold_in(seed, 1))
        return scale(views, normalization=self._constants)

    def training_views(
        self, image: tf.Tensor, augmentation: Augmentation, *, seed: tf.Tensor
    ) -> tf.Tensor:
        """Random views of an image or a batch: crop, augmentation, scale.

        Args:
          image: encoded (string scalar), or pixels [H, W, 3] or [B, H, W, 3].
          augmentation: applied to the crops.
          seed: int64 [...], as for `random_resized_crop`.

        Returns:
          float32 [..., image_px, image_px, 3] with the leading axes of the seed.
        """
        return self.augment_and_scale(
            self.training_crops(image, seed=seed), augmentation, seed=seed
        )

    def evaluation_view(self, image: tf.Tensor) -> tf.Tensor:
        """The evaluation view of a decoded image [H, W, 3] or a batch: crop, scale."""
        crops = self.eval_crop(image, size_px=self.image_px)
        return scale(crops, normalization=self._constants)

    def unscale(self, view: tf.Tensor) -> tf.Tensor:
        """A view scaled back to [0, 1]."""
        return unscale(view, normalization=self._constants)

    @property
    def _constants(self) -> Normalization | None:
        if isinstance(self.normalization, str):
            raise UserError(
                'normalization = "measure" has not been measured: call '
                "supcon_tf.data.normalization.with_measured_normalization first"
            )
        return self.normalization


def _centre(image: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    top = (tf.shape(image)[-3] - height) // 2
    left = (tf.shape(image)[-2] - width) // 2
    return image[..., top : top + height, left : left + width, :]
