"""Runs an exported model over image files; unreadable images are reported and left out."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.image_formats import read_encoded
from supcon_tf.errors import UserError
from supcon_tf.evaluation.prediction_files import COLUMNS, Outputs
from supcon_tf.evaluation.saved_model import LABELS_FILE, load_saved_model
from supcon_tf.evaluation.temperature import read_temperature, scale_probabilities

Model = Callable[[list[bytes]], Outputs]


def load_model(export: Path, *, calibrated: bool = False) -> Model:
    """Loads a SavedModel as a function from encoded images to the outputs to write.

    Args:
      export: directory of the SavedModel.
      calibrated: scale the probabilities by the temperature of the export.

    Raises:
      UserError: a SavedModel of another kind, labels.txt is missing or has other classes, or with
        `calibrated` no temperature.
    """
    temperature = read_temperature(export) if calibrated else None
    loaded = load_saved_model(export)
    if "serving_jpeg" not in loaded.signatures:
        raise UserError(f"{str(export)!r} has no signature 'serving_jpeg': export it again")
    outputs = loaded.signatures["serving_jpeg"].structured_outputs
    is_classifier = "label" in outputs or "labels" in outputs
    names = (
        np.array(class_names(export, outputs["probabilities"].shape[-1])) if is_classifier else None
    )

    def predict(encoded: list[bytes]) -> Outputs:
        # Through `loaded`, as signatures do not keep their variables alive.
        values = loaded.signatures["serving_jpeg"](encoded=tf.constant(encoded, tf.string))
        found = {name: value.numpy() for name, value in values.items() if name in COLUMNS}
        if temperature is not None:
            scaled = scale_probabilities(found["probabilities"], temperature)
            found["probabilities"] = scaled.astype(np.float32)
        if names is not None and "label" in found:
            found["label"] = names[found["label"]]
        elif names is not None:
            found["labels"] = np.array([";".join(names[row > 0]) for row in found["labels"]])
        return found

    return predict


def class_names(export: Path, count: int) -> list[str]:
    """The class names of an export, in labels.txt; see `read_class_names`."""
    return read_class_names(export / LABELS_FILE, count)


def read_class_names(file: Path, count: int) -> list[str]:
    """The lines of a file with the name of each class.

    Raises:
      UserError: no such file, not UTF-8, or not one line for each of the `count` classes.
    """
    try:
        # Not splitlines, which also splits at characters that a name may have.
        names = file.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{str(file)!r} is not UTF-8 text") from None
    except FileNotFoundError:
        raise UserError(f"{str(file)!r} is missing: export the model again") from None
    if len(names) != count:
        raise UserError(
            f"{str(file)!r} must have a line for each of the model's {count} classes, got "
            f"{len(names)}"
        )
    return [name.removesuffix("\r") for name in names]


def predictions(
    model: Model, paths: Sequence[str], *, batch_size: int
) -> Iterator[tuple[list[str], Outputs]]:
    """Runs the model over image files; reports unreadable ones and leaves them out.

    Args:
      model: from `load_model`.
      paths: paths of the images.
      batch_size: images at a time.

    Yields:
      Paths and the model's outputs for them, batch by batch.
    """
    with tqdm(paths, desc="predicting", unit="image", leave=False, disable=None) as bar:
        for start in range(0, len(paths), batch_size):
            chunk = paths[start : start + batch_size]
            read: list[str] = []
            encoded: list[bytes] = []
            for path in chunk:
                try:
                    encoded.append(read_encoded(path))
                    read.append(path)
                except (UserError, OSError, MemoryError) as error:
                    _report(path, error)
            yield from _predict(model, read, encoded)
            bar.update(len(chunk))


def _predict(
    model: Model, paths: list[str], encoded: list[bytes]
) -> Iterator[tuple[list[str], Outputs]]:
    """The whole batch at once, or one by one if an image in it cannot be decoded."""
    if not paths:
        return
    try:
        outputs = model(encoded)
    except (tf.errors.OpError, MemoryError) as error:
        if len(paths) == 1:
            _report(paths[0], error)
            return
        for path, image in zip(paths, encoded, strict=True):
            yield from _predict(model, [path], [image])
        return
    yield paths, outputs


def _report(path: str, error: Exception) -> None:
    # TensorFlow's reason is the line before the first "[[{{node ...}}]]".
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = [line.strip() for line in message.partition("\n\t [[")[0].splitlines()]
    reason = next(filter(None, reversed(lines)), type(error).__name__)[:160]
    tqdm.write(f"left out {path!r}, which cannot be read as an image: {reason}", file=sys.stderr)
