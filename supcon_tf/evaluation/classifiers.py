"""Exported classifiers, from this package or not: images in, class probabilities out."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError, check_choice
from supcon_tf.evaluation.saved_model import load_saved_model

Scores = Literal["auto", "probabilities", "logits"]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A function from images to class probabilities.

    Args:
      description: identifies the classifier, wherever its files are; results of different
        descriptions are not mixed.
      num_classes: C; None if unknown before it has run.
      classify: uint8 [B, H, W, 3] -> float32 [B, C].
    """

    description: str
    num_classes: int | None
    classify: Callable[[np.ndarray], np.ndarray]

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images uint8 [H, W, 3] of any sizes -> float32 [B, C]."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(index)
        rows: dict[int, np.ndarray] = {}
        for indices in by_shape.values():
            answer = self.classify(np.stack([images[index] for index in indices]))
            rows |= zip(indices, answer, strict=True)
        return np.stack([rows[index] for index in range(len(images))])


def saved_model(
    path: Path,
    *,
    signature: str = "serving_default",
    input_key: str | None = None,
    output_key: str | None = None,
    scores: Scores = "auto",
    pixel_range: tuple[float, float] | None = None,
) -> Classifier:
    """Loads a SavedModel signature that maps images [B, H, W, 3] to a score per class.

    An input of fixed size gets the largest centred part with its aspect ratio, resized with
    antialiasing; an input of any size gets the whole images.

    Args:
      path: directory of the SavedModel.
      signature: name of the signature.
      input_key: name of the images. None takes the only input.
      output_key: name of the scores. None takes "probabilities", else "logits", else the only
        output.
      scores: whether the output has probabilities or logits, which get a softmax. "auto" decides by
        the name of the output.
      pixel_range: values of black and white, such as (-1, 1). Required for a float input, as
        SavedModels do not store it; must be None for uint8.

    Raises:
      UserError: no SavedModel, one of several labels per image, an unknown signature, input or
        output, or a missing option; the message lists what the model has.
    """
    check_choice("classifiers.saved_model.scores", scores, get_args(Scores))
    where = f"the SavedModel in {str(path)!r}"
    model = _load(path, signature, where)
    function = model.signatures[signature]
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs
    input_key = _key(where, "input", inputs, input_key)
    output_key = _key(where, "output", outputs, output_key, preferred=("probabilities", "logits"))
    if "labels" in outputs and outputs["labels"].shape.rank == 2:
        raise UserError(
            f"{where} gives several labels per image, and this stage measures one: set "
            "robustness.run.export or shifts.run.export to a classifier of one label per image"
        )
    if scores == "auto":
        scores = _kind_of_scores(where, output_key)
    prepare = _preparation(where, inputs[input_key], pixel_range)
    shape = outputs[output_key].shape
    if shape.rank not in (2, None):
        raise UserError(f"the output {output_key!r} of {where} must be [B, C], got {shape}")

    def classify(images: np.ndarray) -> np.ndarray:
        # Refers to `model`, as the variables are deleted with it.
        answer = model.signatures[signature](**{input_key: prepare(tf.constant(images))})
        values = tf.cast(answer[output_key], tf.float32)
        return (tf.nn.softmax(values) if scores == "logits" else values).numpy()

    return Classifier(
        description=f"{_digest(path)} {signature} {input_key} {output_key} {scores} {pixel_range}",
        num_classes=None if shape.rank is None else shape[1],
        classify=classify,
    )


def _digest(path: Path) -> str:
    """A hash of the graph and of the checksums that TensorFlow keeps of the weights."""
    files = (path / "saved_model.pb", path / "variables" / "variables.index")
    return hashlib.sha256(b"".join(f.read_bytes() for f in files if f.is_file())).hexdigest()[:16]


def _load(path: Path, signature: str, where: str) -> Any:
    if not (path / "saved_model.pb").is_file():
        raise UserError(
            f'no SavedModel in {str(path)!r}: put "linear" before "robustness" or "shifts" in '
            "experiment.run.stages, or set robustness.run.export or shifts.run.export to one"
        )
    model = load_saved_model(path)
    if signature not in model.signatures:
        raise UserError(
            f"{where} has no signature {signature!r}: set classifiers.saved_model.signature to "
            f"one of {sorted(model.signatures)}"
        )
    return model


def _kind_of_scores(where: str, output_key: str) -> Literal["probabilities", "logits"]:
    if output_key == "probabilities":
        return "probabilities"
    if output_key == "logits":
        return "logits"
    raise UserError(
        f"the output {output_key!r} of {where} may be probabilities or logits: set "
        "classifiers.saved_model.scores to 'probabilities' or 'logits'"
    )


def _key(
    where: str,
    kind: str,
    tensors: Mapping[str, Any],
    key: str | None,
    *,
    preferred: Sequence[str] = (),
) -> str:
    """The requested key, else a preferred one, else the only one."""
    setting = f"classifiers.saved_model.{kind}_key"
    if key is not None:
        if key not in tensors:
            raise UserError(
                f"{where} has no {kind} {key!r}: set {setting} to one of {sorted(tensors)}"
            )
        return key
    if set(tensors) <= {"embedding", "projection"}:
        raise UserError(
            f'{where} has no class scores: put "linear" before "robustness" or "shifts" in '
            "experiment.run.stages, or set robustness.run.export or shifts.run.export to one with "
            "them"
        )
    found = [name for name in preferred if name in tensors]
    if found or len(tensors) == 1:
        return found[0] if found else next(iter(tensors))
    raise UserError(f"{where} has several {kind}s: set {setting} to one of {sorted(tensors)}")


def _preparation(
    where: str, spec: tf.TensorSpec, pixel_range: tuple[float, float] | None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from uint8 images [B, H, W, 3] to the input of the model."""
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
            f"{where} takes {spec.dtype.name} of unknown range: set "
            "classifiers.saved_model.pixel_range to (0, 1), (-1, 1) or (0, 255)"
        )
    if not takes_floats and pixel_range is not None:
        raise UserError(f"{where} takes uint8: remove classifiers.saved_model.pixel_range")
    if pixel_range is not None and not _is_range(pixel_range):
        raise UserError(
            "classifiers.saved_model.pixel_range must be (black, white) with black < white, such "
            f"as (-1, 1), got {pixel_range!r}"
        )

    def prepare(images: tf.Tensor) -> tf.Tensor:
        if shape[1] is not None and shape[2] is not None and images.shape[1:3] != shape[1:3]:
            images = _centre_crop(images, shape[1], shape[2])
        if pixel_range is None:
            return tf.cast(tf.round(tf.cast(images, tf.float32)), tf.uint8)
        low, high = pixel_range
        return tf.cast(low + (high - low) / 255.0 * tf.cast(images, tf.float32), spec.dtype)

    return prepare


def _is_range(value: Any) -> bool:
    is_pair = isinstance(value, Sequence) and len(value) == 2
    return is_pair and all(isinstance(v, int | float) for v in value) and value[0] < value[1]


def _centre_crop(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The largest centred part with this aspect ratio, float32 [B, height, width, 3]."""
    scale = max(height / images.shape[1], width / images.shape[2])
    size = [max(height, round(images.shape[1] * scale)), max(width, round(images.shape[2] * scale))]
    resized = tf.image.resize(images, size, antialias=True)
    return tf.image.resize_with_crop_or_pad(resized, height, width)
