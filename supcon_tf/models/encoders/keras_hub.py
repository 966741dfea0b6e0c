"""Backbones of KerasHub presets, with the images that each was trained with."""

import difflib

import keras
import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.files import expanded
from supcon_tf.models.encoders.input_scaling import InputScaling
from supcon_tf.models.encoders.keras_file import check_image_network


def hub_backbone(preset: str, weights: str | None) -> tuple[keras.Model, InputScaling]:
    """The backbone of a preset, and the scaling of its images.

    Args:
      preset: a preset of KerasHub itself, such as "resnet_50_imagenet", or a directory with one.
      weights: "imagenet" for the preset's; None for random weights. A preset that is not a
        directory is downloaded in both cases.

    Raises:
      UserError: KerasHub is not installed, the preset is unknown, cannot be loaded, or is not of
        images.
    """
    try:
        import keras_hub
    except ImportError:
        raise UserError(
            f"'keras_hub:{preset}' needs KerasHub: pip install 'supcon-tf[keras-hub]'"
        ) from None
    if weights not in ("imagenet", None):
        raise UserError(f"weights of a KerasHub preset must be 'imagenet' or None, got {weights!r}")
    known, folder = keras_hub.models.Backbone.presets, expanded(preset)
    if preset not in known and not folder.is_dir():
        near = difflib.get_close_matches(preset, known, n=1, cutoff=0.5)
        raise UserError(
            f"no KerasHub preset and no directory {preset!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    path = preset if preset in known else str(folder)
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(path)
        backbone = keras_hub.models.Backbone.from_preset(path, load_weights=weights is not None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the KerasHub preset {preset!r} cannot be loaded: {reason}") from None
    check_image_network(backbone, f"the KerasHub preset {preset!r}")
    scale, offset = (
        np.broadcast_to(np.float64(default if value is None else value), [3])
        for value, default in ((converter.scale, 1.0), (converter.offset, 0.0))
    )
    scaling = InputScaling(
        (127.5 * scale).tolist(), (127.5 * scale + offset).tolist(), name="input_scaling"
    )
    return backbone, scaling
