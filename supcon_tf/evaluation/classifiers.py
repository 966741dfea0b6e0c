"""Any exported classifier, ours or not: images in, class probabilities out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError

Scores = Literal["auto", "probabilities", "logits"]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """What answers images with probabilities.

    Args:
      description: what it is; results of another description are not mixed.
      num_classes: C; None where it does not say before it has run.
      classify: uint8 [B, H, W, 3] -> float32 [B, C].
    """

    description: str
    num_classes: int | None
    classify: Callable[[np.ndarray], np.ndarray]

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Float32 [B, C] of images uint8 [H, W, 3] that need not have one size."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(number)
        answers: dict[int, np.ndarray] = {}
        for numbers in by_shape.values():
            answer = self.classify(np.stack([images[number] for number in numbers]))
            answers |= zip(numbers, answer, strict=True)
        return np.stack([answers[number] for number in range(len(images))])


def saved_model(
    path: Path,
    *,
    signature: str = "serving_default",
    input_key: str | None = None,
    output_key: str | None = None,
    scores: Scores = "auto",
    pixel_range: tuple[float, float] | None = None,
) -> Classifier:
    """A SavedModel's signature that takes images [B, H, W, 3] and gives a score per class.

    An input of a fixed size gets the largest centred part of its aspect, scaled to it with
    averaging; one of any size gets the images as they are.

    Args:
      path: the SavedModel's folder.
      signature: its name.
      input_key: of the images; None is the only input.
      output_key: of the scores; None is "probabilities", else "logits", else the only output.
      scores: what the output holds; "auto" goes by its key. Logits get a softmax.
      pixel_range: what black and white are to a model of floats, such as (-1, 1). Needed there,
        as no SavedModel says; a model of uint8 takes 0 and 255.

    Raises:
      UserError: no SavedModel there.
      UserError: something that the model does not have, with what it has, or that it does not
        say.
    """
    if scores not in get_args(Scores):
        raise UserError(
            f"classifiers.saved_model.scores must be one of {get_args(Scores)}, got {scores!r}"
        )
    where = f"the SavedModel in {str(path)!r}"
    if not (path / "saved_model.pb").is_file():
        raise UserError(
            f'no SavedModel in {str(path)!r}: put "linear" before "robustness" in '
            "experiment.run.stages, or set robustness.run.export to one"
        )
    model = tf.saved_model.load(str(path))
    if signature not in model.signatures:
        raise UserError(
            f"{where} has no signature {signature!r}: set classifiers.saved_model.signature to "
            f"one of {sorted(model.signatures)}"
        )
    function = model.signatures[signature]
    inputs = function.structured_input_signature[1]
    input_key = _chosen(where, "input", inputs, input_key)
    outputs = function.structured_outputs
    output_key = _chosen(where, "output", outputs, output_key, likely=("probabilities", "logits"))
    if scores == "auto":
        if output_key not in ("probabilities", "logits"):
            raise UserError(
                f"the output {output_key!r} of {where} may be probabilities or logits: set "
                "classifiers.saved_model.scores to 'probabilities' or 'logits'"
            )
        scores = "logits" if output_key == "logits" else "probabilities"
    prepare = _preparation(where, inputs[input_key], pixel_range)
    shape = outputs[output_key].shape
    if shape.rank not in (2, None):
        raise UserError(f"the output {output_key!r} of {where} must be [B, C], got {shape}")

    def classify(images: np.ndarray) -> np.ndarray:
        # `model` holds the variables of the signature, which live only as long as it does.
        answer = model.signatures[signature](**{input_key: prepare(tf.constant(images))})
        values = tf.cast(answer[output_key], tf.float32)
        return (tf.nn.softmax(values) if scores == "logits" else values).numpy()

    return Classifier(
        description=f"{path.resolve()} {signature} {input_key} {output_key} {scores} {pixel_range}",
        num_classes=None if shape.rank is None else shape[1],
        classify=classify,
    )


def _chosen(
    where: str,
    kind: str,
    tensors: Mapping[str, Any],
    key: str | None,
    *,
    likely: Sequence[str] = (),
) -> str:
    """The key that was asked for, a likely one, or the only one."""
    setting = f"classifiers.saved_model.{kind}_key"
    if key is not None:
        if key not in tensors:
            raise UserError(
                f"{where} has no {kind} {key!r}: set {setting} to one of {sorted(tensors)}"
            )
        return key
    named = [name for name in likely if name in tensors]
    if named or len(tensors) == 1:
        only = named[0] if named else next(iter(tensors))
        if only == "embedding":
            raise UserError(
                f'{where} has no class scores: put "linear" before "robustness" in '
                "experiment.run.stages, or set robustness.run.export to one with them"
            )
        return only
    raise UserError(f"{where} has several {kind}s: set {setting} to one of {sorted(tensors)}")


def _preparation(
    where: str, spec: tf.TensorSpec, pixel_range: tuple[float, float] | None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """uint8 images [B, H, W, 3] -> what the input takes."""
    shape = spec.shape
    if shape.rank != 4 or shape[3] not in (3, None) or shape[0] is not None:
        raise UserError(
            f"the input {spec.name!r} of {where} must be images [B, H, W, 3] of any B, got {shape}"
        )
    takes_floats = spec.dtype.is_floating
    if not takes_floats and spec.dtype != tf.uint8:
        raise UserError(f"the input of {where} must be uint8 or floats, got {spec.dtype.name}")
    if takes_floats and pixel_range is None:
        raise UserError(
            f"{where} takes {spec.dtype.name} and does not say of what range: set "
            "classifiers.saved_model.pixel_range to (0, 1), (-1, 1) or (0, 255)"
        )
    if not takes_floats and pixel_range is not None:
        raise UserError(f"{where} takes uint8: leave classifiers.saved_model.pixel_range out")

    def prepare(images: tf.Tensor) -> tf.Tensor:
        if shape[1] is not None and shape[2] is not None and images.shape[1:3] != shape[1:3]:
            images = _fitted(images, shape[1], shape[2])
        if pixel_range is None:
            return tf.cast(tf.round(tf.cast(images, tf.float32)), tf.uint8)
        low, high = pixel_range
        return tf.cast(low + (high - low) / 255.0 * tf.cast(images, tf.float32), spec.dtype)

    return prepare


def _fitted(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The largest centred part of this aspect, float32 [B, height, width, 3] in 0 to 255."""
    scale = max(height / images.shape[1], width / images.shape[2])
    size = [max(height, round(images.shape[1] * scale)), max(width, round(images.shape[2] * scale))]
    resized = tf.image.resize(images, size, antialias=True)
    return tf.image.resize_with_crop_or_pad(resized, height, width)
