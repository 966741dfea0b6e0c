"""Pretrained encoders by name."""

import keras
from keras import layers

from supcon_tf.errors import UserError, check_integer, check_text
from supcon_tf.files import expanded
from supcon_tf.models.encoders import efficientnet_lite
from supcon_tf.models.encoders.input_scaling import InputScaling, from_bytes


def pretrained(
    name: str, *, weights: str | None = "imagenet", image_px: int | None = None
) -> keras.Model:
    """A pretrained encoder that takes images as this package has them.

    Each network was trained with images of its own range. The scaling is the encoder's first layer,
    so all encoders take float RGB images in [-1, 1], which `views.Preprocessing` makes when its
    normalization is None.

    Args:
      name: "efficientnet_lite0".
      weights: "imagenet"; a file of weights; None for random weights.
      image_px: side to which the encoder resizes its images, bilinearly; None keeps their size.
        Small images need it: most networks reduce the sides by 32.

    Returns:
      A model from float [B, H, W, 3] to float32 features [B, D].

    Raises:
      UserError: an unknown name, weights that are not there or of another network, or an option out
        of range.

    Example:
      >>> from supcon_tf import models
      >>> encoder = models.pretrained("efficientnet_lite0", weights=None, image_px=96)
      >>> encoder.output_shape
      (None, 1280)
    """
    check_text("name", name, example="efficientnet_lite0")
    if weights is not None:
        check_text("weights", weights, example="imagenet")
    if image_px is not None:
        check_integer("image_px", image_px, at_least=1)
    backbone, scaling = _named(name, weights)

    images = keras.Input((None, None, 3), name="images")
    x = images
    if image_px is not None:
        x = layers.Resizing(
            image_px, image_px, data_format="channels_last", dtype="float32", name="resize"
        )(x)
    return keras.Model(images, backbone(scaling(x)), name=f"pretrained_{backbone.name}")


def _named(name: str, weights: str | None) -> tuple[keras.Model, InputScaling]:
    if name != "efficientnet_lite0":
        raise UserError(f"name must be 'efficientnet_lite0', got {name!r}")
    if weights is None:
        model = efficientnet_lite.efficientnet_lite0()
    else:
        file = None if weights == "imagenet" else expanded(weights)
        model = efficientnet_lite.pretrained_lite0(file)
    return model, from_bytes(1 / 128, 127.0)
