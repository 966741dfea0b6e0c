"""A SavedModel that also scores how unknown an image is."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from supcon_tf.evaluation.saved_model import LABELS_FILE
from supcon_tf.evaluation.temperature import TEMPERATURE_FILE
from supcon_tf.exporting.signatures import Function, load_export
from supcon_tf.json_files import write_checksums, write_json
from supcon_tf.run_dir import CALIBRATION_FILE


def add_unknown_score(
    export: Path,
    output: Path,
    *,
    means: np.ndarray,
    whitening: np.ndarray,
    threshold: float,
    calibration: Mapping[str, Any],
) -> None:
    """Writes a SavedModel with two more outputs, `unknown_score` and `is_unknown`.

    Args:
      export: SavedModel of `save_serving_model`.
      output: new or empty directory.
      means: class means of embeddings of unit length, float64 [C, D].
      whitening: float64 [D, D], W with W W^T = Sigma^-1.
      threshold: of the score; an image with a higher score is unknown.
      calibration: content of calibration.json.

    Raises:
      UserError: a damaged SavedModel, or one of an older version.
    """
    loaded = load_export(export)
    score = mahalanobis(means, whitening, threshold)

    def extended(outputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**outputs, **score(outputs["embedding"])}

    module = tf.Module()
    module.loaded = loaded  # Has the variables.
    module.evaluation_view = loaded.evaluation_view
    pixels = _signature_input(loaded.signatures["serving_pixels"])
    module.model_outputs = tf.function(
        lambda pixels: extended(loaded.model_outputs(pixels)), input_signature=[pixels]
    )
    signatures = {name: _extend(loaded.signatures[name], extended) for name in loaded.signatures}
    output = output.resolve()  # "." has no name.
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        tf.saved_model.save(module, str(partial), signatures=signatures)
        for name in (LABELS_FILE, TEMPERATURE_FILE):
            if (export / name).is_file():
                shutil.copyfile(export / name, partial / name)
        write_json(partial / CALIBRATION_FILE, dict(calibration))
        write_checksums(partial)
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def mahalanobis(
    means: np.ndarray, whitening: np.ndarray, threshold: float
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The score of `ClassStatistics.distances` in float32, which all file formats have.

    It subtracts whitened vectors, as their squared lengths may be far larger than the score.

    Args:
      means: float64 [C, D].
      whitening: float64 [D, D].
      threshold: see `add_unknown_score`.

    Returns:
      A function from embeddings [B, D] of any length to "unknown_score", float32 [B], and
      "is_unknown", bool [B], also True for an embedding with NaN.
    """
    origin = means.mean(axis=0).astype(np.float32)
    centers = ((means - origin) @ whitening).astype(np.float32)  # [C, D]
    matrix = whitening.astype(np.float32)

    def score(embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        whitened = tf.matmul(_unit_length(tf.cast(embeddings, tf.float32)) - origin, matrix)
        squares = tf.math.squared_difference(whitened[:, None], centers[None])  # [B, C, D]
        scores = tf.reduce_min(tf.reduce_sum(squares, axis=2), axis=1)
        return {"unknown_score": scores, "is_unknown": tf.logical_not(scores <= threshold)}

    return score


def _unit_length(rows: tf.Tensor) -> tf.Tensor:
    """Rows [B, D] of length 1; rows of zeros stay zeros."""
    # Dividing by the largest entry first avoids overflow and underflow of the squares.
    largest = tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)
    rows = rows / tf.where(largest > 0, largest, 1.0)
    lengths = tf.sqrt(tf.reduce_sum(tf.square(rows), axis=1, keepdims=True))
    return rows / tf.where(lengths > 0, lengths, 1.0)


def _signature_input(signature: Any) -> tf.TensorSpec:
    """The only input of a signature, with its name."""
    _, inputs = signature.structured_input_signature
    [(name, spec)] = inputs.items()
    return tf.TensorSpec(spec.shape, spec.dtype, name)


def _extend(
    signature: Any, extended: Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]
) -> Function:
    """A signature with more outputs."""
    spec = _signature_input(signature)
    return tf.function(
        lambda values: extended(signature(**{spec.name: values})), input_signature=[spec]
    )
