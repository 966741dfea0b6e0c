"""Keras models in `.keras` files."""

import zipfile
from pathlib import Path

import keras
import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.models.embedding import model_parts

# Layers that give images of the range of their inputs.
_KEEP_RANGE = (
    keras.layers.Resizing,
    keras.layers.CenterCrop,
    keras.layers.Cropping2D,
    keras.layers.ZeroPadding2D,
    keras.layers.RandomBrightness,
    keras.layers.RandomContrast,
    keras.layers.RandomCrop,
    keras.layers.RandomFlip,
    keras.layers.RandomRotation,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
)
# What Keras raises for a file that is damaged, or of another network.
KERAS_ERRORS = (TypeError, ValueError, KeyError, OSError, zipfile.BadZipFile)


def load_keras_model(file: Path) -> keras.Model:
    """Loads a `.keras` file in Keras's safe mode.

    Raises:
      UserError: damaged, or of classes that are not known.
    """
    if not file.is_file():
        raise UserError(f"no file {str(file)!r}: name a .keras file")
    if file.suffix == ".keras" and not zipfile.is_zipfile(file):
        raise UserError(f"{str(file)!r} is damaged, or no Keras model: save the model again")
    try:
        return keras.saving.load_model(file, compile=False)
    except KERAS_ERRORS as error:
        # Keras' messages start with what it could not do, before a page of configuration.
        raise UserError(f"{str(file)!r} cannot be loaded: {str(error).splitlines()[0]}") from error


def has_heads(model: keras.Model) -> bool:
    """Whether a model was built by `supcon_tf.models`, and is not a plain encoder."""
    return any(
        layer.name == "embedding" and isinstance(layer, keras.Model) for layer in model.layers
    )


def encoder_of_file(file: Path) -> keras.Model:
    """The encoder of a model of this package, or any Keras model that takes images in [-1, 1].

    Raises:
      UserError: as in `load_keras_model`; a model that does not map RGB images to vectors or
        feature maps, or one that takes images in 0...255.
    """
    model = load_keras_model(file)
    encoder = model
    if has_heads(model):
        encoder = model_parts(model)["encoder"]
        unfreeze(encoder)
    check_image_network(encoder, repr(str(file)))
    check_input_scale(encoder, repr(str(file)))
    return encoder


def unfreeze(encoder: keras.Model) -> None:
    """Makes all of an encoder trainable: what its own training froze is a setting of that stage."""
    # Set twice: Keras does not pass a value on to the layers if the model already has it.
    encoder.trainable = False
    encoder.trainable = True


def check_input_scale(model: keras.Model, name: str) -> None:
    """Raises a UserError if a model first divides its images by 255 or the like.

    Layers before that keep the range, such as Resizing and RandomFlip, are passed over. A division
    that is no layer, as in `inputs / 255`, is not seen.
    """
    first = next((layer for layer in model._flatten_layers() if _computes(layer)), None)
    if _takes_bytes(first):
        raise UserError(
            f"{name} divides its images first, so it takes 0...255, and this package's are in "
            "[-1, 1]: put keras.layers.Rescaling(127.5, offset=127.5) before it"
        )


def check_image_network(model: keras.Model, name: str) -> None:
    """Checks that a model maps RGB images to vectors or feature maps.

    Raises:
      UserError: it has other inputs or outputs.
    """
    if not hasattr(model, "inputs"):
        raise UserError(
            f"{name} is a subclass of keras.Model, whose layers cannot be seen: save a functional "
            "model, keras.Model(inputs, outputs), that calls it"
        )
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    is_single = len(model.inputs) == len(model.outputs) == 1
    is_of_images = is_single and len(shapes[0]) == 4 and shapes[0][3] == 3
    if not (is_of_images and len(shapes[1]) in (2, 4)):
        raise UserError(
            f"{name} must map images [B, H, W, 3] to [B, D] or [B, H, W, D], it has inputs and "
            f"outputs {', '.join(map(str, shapes))}"
        )


def _computes(layer: keras.layers.Layer) -> bool:
    """Whether a layer may change the range of images."""
    return not isinstance(layer, (keras.Model, keras.layers.InputLayer, *_KEEP_RANGE))


def _takes_bytes(layer: keras.layers.Layer | None) -> bool:
    """Whether a layer scales images of 0...255: by 1 / 255 or the like, or with such a mean."""
    if isinstance(layer, keras.layers.Normalization):
        mean = layer.input_mean if layer.mean is None else layer.mean
        return mean is not None and bool(np.max(keras.ops.convert_to_numpy(mean)) > 2)
    if isinstance(layer, keras.layers.Rescaling):
        scale = np.asarray(layer.scale, "float64")
        return bool(np.all((scale > 0) & (scale < 0.02)))
    return False
