"""Export of a trained model as a SavedModel with its preprocessing inside."""

import os
import shutil
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError

from supcon_tf.data.class_names import check_class_name
from supcon_tf.data.decode import decode
from supcon_tf.data.preprocessing import Preprocessing
from supcon_tf.errors import UserError
from supcon_tf.evaluation.temperature import write_temperature
from supcon_tf.files import sync
from supcon_tf.json_files import check_checksums, write_checksums
from supcon_tf.models import class_scores, embedding_model, model_parts

# One class name per line.
LABELS_FILE = "labels.txt"


def load_saved_model(path: Path) -> Any:
    """Loads a SavedModel of any origin.

    Raises:
      UserError: a damaged one.
    """
    check_checksums(path)
    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, KeyError, DecodeError, tf.errors.OpError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"the SavedModel in {str(path)!r} is damaged ({reason}): export it again"
        ) from None


def serving_model(trained: keras.Model, *, multi_label: bool = False) -> keras.Model:
    """All outputs of a trained model for single images.

    Args:
      trained: from `contrastive_model` or `classification_model`; the weights are shared.
      multi_label: class probabilities by a sigmoid for each class instead of a softmax.

    Returns:
      A model from float [B, H, W, C] to {"embedding": [B, D], "projection": [B, P], "logits":
      [B, C], "probabilities": [B, C]}, as far as `trained` has these parts.
    """
    encoder, parts = embedding_model(trained), model_parts(trained)
    images = keras.Input(encoder.input_shape[1:], name="images")
    embedding = encoder(images)
    outputs = {"embedding": embedding}
    if "projection_head" in parts:
        outputs["projection"] = parts["projection_head"](embedding)
    if "classifier" in parts:
        logits = class_scores(parts["classifier"](embedding))
        probabilities = keras.ops.sigmoid if multi_label else keras.ops.softmax
        outputs |= {"logits": logits, "probabilities": probabilities(logits)}
    return keras.Model(images, outputs)


def save_serving_model(
    path: Path,
    model: keras.Model,
    *,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] | None,
    multi_label: bool = False,
    temperature: float | None = None,
) -> None:
    """Writes a SavedModel that takes images of any size, replacing what is at `path`.

    Signatures: "serving_default" takes `images`, uint8 [B, H, W, 3]; "serving_jpeg" takes
    `encoded`, the contents of image files, string [B]; "serving_pixels" takes `pixels`, float32
    [B, image_px, image_px, 3], evaluation views. All return the outputs of `model`: see
    `serving_model`. With class names there is also `label`, int64 [B], or with `multi_label`
    `labels`, int64 [B, C], 1 for each class with a probability of at least 0.5. An empty batch has
    empty outputs. The lines of labels.txt are the class names; temperature.json has the
    temperature, which the signatures do not use; checksums.json has the checksums of all files.

    The loaded object has two functions that `supcon_tf.exporting` converts to other formats:
    `evaluation_view`, float32 [B, H, W, 3] in [0, 1] -> pixels, and `model_outputs`, pixels ->
    outputs, B > 0.

    Args:
      path: directory to write.
      model: images -> a dict with "embedding" and others, see `serving_model`.
      preprocessing: the evaluation crop and normalization.
      class_names: [C]. None leaves out logits and probabilities, as for an auxiliary classifier.
      multi_label: whether an image may have several labels.
      temperature: of the class probabilities, see `fit_temperature`. None writes none.

    Raises:
      UserError: a class name that is empty, not UTF-8 or has a line break.
    """
    for name in class_names or ():
        check_class_name(name)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    module, signatures = _serving_module(model, preprocessing, class_names, multi_label)
    tf.saved_model.save(module, str(partial), signatures=signatures)
    if class_names is not None:
        lines = "".join(f"{name}\n" for name in class_names)
        (partial / LABELS_FILE).write_text(lines, encoding="utf-8")
    if temperature is not None:
        write_temperature(partial, temperature)
    write_checksums(partial)
    for file in partial.rglob("*"):
        sync(file)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
    sync(path.parent)


def _serving_module(
    model: keras.Model,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] | None,
    multi_label: bool,
) -> tuple[tf.Module, dict[str, Any]]:
    """The object to save, and its signatures."""
    image_shape = preprocessing.image_shape

    # All signatures call this function, so that the model is traced once.
    @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.float32, "pixels")])
    def model_outputs(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = dict(model(pixels, training=False))
        if class_names is None:
            for name in ("logits", "probabilities"):
                outputs.pop(name, None)
        elif multi_label:
            outputs["labels"] = tf.cast(outputs["probabilities"] >= 0.5, tf.int64)
        else:
            outputs["label"] = tf.argmax(outputs["probabilities"], axis=1)
        return outputs

    @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.float32, "pixels")])
    def from_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        # Some kernels fail on an empty batch, so one black image is run and its outputs dropped.
        count = tf.shape(pixels)[0]
        pixels = tf.cond(count == 0, lambda: tf.zeros([1, *image_shape]), lambda: pixels)
        return {name: values[:count] for name, values in model_outputs(pixels).items()}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # The images of an empty batch may have size 0, which resizing rejects.
        views = tf.cond(
            tf.shape(images)[0] == 0,
            lambda: tf.zeros([0, *image_shape]),
            lambda: preprocessing.evaluation_view(images),
        )
        return from_pixels(views)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "encoded")])
    def from_encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        views = tf.map_fn(
            lambda image: preprocessing.evaluation_view(decode(image, palettes=True)),
            encoded,
            fn_output_signature=tf.TensorSpec(image_shape, tf.float32),
        )
        return from_pixels(views)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, "images")])
    def evaluation_view(images: tf.Tensor) -> tf.Tensor:
        return preprocessing.evaluation_view(images)

    # Only the variables: a server does not need the layers, and saving them takes longer.
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]
    module.evaluation_view, module.model_outputs = evaluation_view, model_outputs
    signatures = {
        "serving_default": from_images,
        "serving_jpeg": from_encoded,
        "serving_pixels": from_pixels,
    }
    return module, signatures
