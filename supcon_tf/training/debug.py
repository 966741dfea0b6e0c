"""Finds the operation that makes the first NaN or infinity, and keeps the batch that led to it."""

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.files import replacing
from supcon_tf.run_dir import RunDir

_OPERATION = re.compile(r'NaN in output \d+ of .*? op "(\w+)"')
_FRAME = re.compile(r"\+ (\S+) \(L(\d+)\)")
_enabled = False


def enable() -> None:
    """Lets TensorFlow check the output of each operation, in graphs that are built from now on."""
    global _enabled
    tf.debugging.enable_check_numerics()
    _enabled = True


def disable() -> None:
    """Ends the checks, for graphs that are built from now on."""
    global _enabled
    tf.debugging.disable_check_numerics()
    _enabled = False


def is_found_by(error: tf.errors.OpError) -> bool:
    """Whether an error comes from these checks."""
    return _enabled and _OPERATION.search(str(error)) is not None


def explain(
    error: tf.errors.OpError,
    batches: Callable[[int, int], Any],
    *,
    step: int,
    stage: str,
    run_dir: RunDir,
) -> UserError:
    """The error of a user for an error of the checks; saves the batch.

    Args:
      error: as `is_found_by` accepts it.
      batches: start, stop -> the batches of these steps.
      step: number of steps before this one.
      stage: the stage's name.
      run_dir: gets a file with the inputs and labels of the batch.
    """
    message = str(error)
    operation = _OPERATION.search(message)
    # The last line of code outside of TensorFlow and Keras that made the operation.
    frames = [f"{file}:{line}" for file, line in _FRAME.findall(message) if _is_ours(file)]
    file = run_dir.debug_batch(stage, step + 1)
    saved = ""
    dataset = batches(step, step + 1)
    if isinstance(dataset, tf.data.Dataset):
        inputs, labels = next(iter(dataset))[:2]
        arrays: dict[str, Any] = {**_named("inputs", inputs), **_named("labels", labels)}
        with replacing(file) as partial, partial.open("wb") as opened:
            np.savez(opened, **arrays)
        saved = f"; its batch is in {str(file)!r}"
    where = f", made in {frames[-1]}" if frames else ""
    name = operation[1] if operation else "an operation"
    return UserError(f"step {step + 1} of {stage} has NaN or infinity from {name}{where}{saved}")


def _is_ours(file: str) -> bool:
    return not re.search(r"tensorflow/|/?keras/src/", file)


def _named(name: str, values: Any) -> dict[str, np.ndarray]:
    """Each array of a nested structure, by its place in it."""
    return {
        "_".join([name, *map(str, path)]): array.numpy()
        for path, array in keras.tree.flatten_with_path(values)
    }
