"""Class numbers in the one form that the measures take, however they are stored."""

from typing import Any

import numpy as np


def class_numbers(labels: Any) -> np.ndarray:
    """Integers of any size [n], or a column of them [n, 1] -> int64 [n].

    Raises:
      ValueError: another rank or shape, or floats.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation.class_numbers import class_numbers
      >>> class_numbers(np.array([[3], [1]], np.uint8)).tolist()
      [3, 1]
    """
    numbers = np.asarray(labels)
    is_column = numbers.ndim == 2 and numbers.shape[1] == 1
    if numbers.dtype.kind not in "biu" or not (numbers.ndim == 1 or is_column):
        raise ValueError(
            f"labels must be integers [n] or [n, 1], got {numbers.dtype} of shape "
            f"{numbers.shape}: of one-hot rows take labels.argmax(axis=1)"
        )
    return numbers.reshape(-1).astype(np.int64)
