"""The signatures of a SavedModel as functions that other formats can hold."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.evaluation.saved_model import load_saved_model

# A tf.function with an input signature.
Function: TypeAlias = tf.types.experimental.GenericFunction


def load_export(path: Path) -> Any:
    """Loads a SavedModel of `save_serving_model`.

    Raises:
      UserError: damaged, or of an older version.
    """
    loaded = load_saved_model(path)
    if not hasattr(loaded, "evaluation_view") or not hasattr(loaded, "model_outputs"):
        raise UserError(
            f"the SavedModel in {str(path)!r} is of an older version, which cannot be converted or "
            "extended: remove its saved_model.pb, and python -m supcon_tf.train with the same "
            "--workdir writes it again"
        )
    return loaded


def convertible_signatures(loaded: Any) -> dict[str, Function]:
    """Functions like the signatures of the same name, without what converters reject.

    Converters have no resizing of uint8, so images become float32 first. An empty batch, for which
    the signatures have a condition, is left out.

    Args:
      loaded: from `load_export`.

    Returns:
      "serving_default" and "serving_pixels".

    Raises:
      UserError: the evaluation crop is a function that treats float32 images differently.
    """

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return loaded.model_outputs(loaded.evaluation_view(tf.cast(images, tf.float32) / 255.0))

    side = image_px(loaded)

    @tf.function(input_signature=[tf.TensorSpec([None, side, side, 3], tf.float32, "pixels")])
    def from_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return loaded.model_outputs(pixels)

    noise = np.random.default_rng(0).integers(0, 256, (1, side + 5, 2 * side, 3), np.uint8)
    served = loaded.signatures["serving_default"](images=tf.constant(noise))["embedding"]
    if not np.allclose(from_images(tf.constant(noise))["embedding"], served, rtol=1e-3, atol=1e-3):
        raise UserError(
            "views.Preprocessing.eval_crop gives another crop for float32 images in [0, 1] than "
            "for uint8 images: other formats need the same"
        )
    return {"serving_default": from_images, "serving_pixels": from_pixels}


def image_px(loaded: Any) -> int:
    """Side of the model's input."""
    _, inputs = loaded.signatures["serving_pixels"].structured_input_signature
    return int(inputs["pixels"].shape[1])


@contextmanager
def saved(loaded: Any, functions: Mapping[str, Function]) -> Iterator[str]:
    """A SavedModel of these signatures, in a directory that is removed afterwards."""
    module = tf.Module()
    module.loaded = loaded  # Has the variables.
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=dict(functions))
        yield folder
