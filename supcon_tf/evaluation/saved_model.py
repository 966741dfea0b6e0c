"""A trained model as a SavedModel that takes pictures as they are."""

import os
import shutil
from pathlib import Path

import keras
import tensorflow as tf

from supcon_tf.data.decode import decode
from supcon_tf.data.preprocessing import Preprocessing


def save_serving_model(
    path: Path,
    scorer: keras.Model,
    *,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] | None,
    multi_label: bool = False,
) -> None:
    """Writes a SavedModel with the preprocessing inside, replacing what is at `path`.

    Signatures: "serving_default" takes `images`, uint8 [B, H, W, 3]; "serving_jpeg" takes
    `encoded`, JPEG, PNG, WebP, BMP or GIF strings [B]. Both return `embedding`, float32 [B, D],
    and with class names `probabilities`, float32 [B, C], and `label`, int64 [B]; or `labels`, int64
    [B, C], with 1 for each class of a probability of at least 0.5, where images may have several.
    The names of the classes are the lines of labels.txt.

    Args:
      path: the folder to write.
      scorer: images -> {"embedding", "probabilities"}.
      preprocessing: the evaluation crop and scale.
      class_names: None leaves probabilities and labels out.
      multi_label: whether an image may have several labels.
    """

    # Both signatures call it, so that the model is traced once.
    @tf.function(input_signature=[tf.TensorSpec([None, *preprocessing.image_shape], tf.float32)])
    def answer(views: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = scorer(views, training=False)
        if class_names is None:
            return {"embedding": outputs["embedding"]}
        if multi_label:
            return {**outputs, "labels": tf.cast(outputs["probabilities"] >= 0.5, tf.int64)}
        return {**outputs, "label": tf.argmax(outputs["probabilities"], axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(preprocessing.evaluation_view(images))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "encoded")])
    def from_encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        views = tf.map_fn(
            lambda image: preprocessing.evaluation_view(decode(image)),
            encoded,
            fn_output_signature=tf.TensorSpec(preprocessing.image_shape, tf.float32),
        )
        return answer(views)

    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    # The variables alone: a server needs none of the layers, and saving them takes longer.
    module = tf.Module()
    module.scored_by = [variable.value for variable in scorer.variables]
    signatures = {"serving_default": from_images, "serving_jpeg": from_encoded}
    tf.saved_model.save(module, str(partial), signatures=signatures)
    if class_names is not None:
        (partial / "labels.txt").write_text("".join(f"{name}\n" for name in class_names))
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
