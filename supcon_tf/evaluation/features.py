"""Model outputs for a whole split."""

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.errors import UserError


def predict(
    model: keras.Model, batches: tf.data.Dataset, *, num_batches: int, description: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Runs a model over labelled batches in inference mode, with a progress bar.

    Args:
      model: images [B, H, W, 3] -> a dict of tensors [B, ...].
      batches: batches of (images [B, H, W, 3], labels [B] or [B, C]).
      num_batches: total of the progress bar.
      description: title of the progress bar.

    Returns:
      The outputs [n, ...] for all images, and their labels, int64 [n] or [n, C].

    Raises:
      UserError: no batches.
    """
    # One trace for any size of the last batch.
    run = tf.function(lambda images: model(images, training=False)).get_concrete_function(
        batches.element_spec[0]
    )
    outputs: dict[str, list[np.ndarray]] = {}
    labels = []
    for images, batch_labels in tqdm(
        batches, desc=description, total=num_batches, unit="batch", leave=False, disable=None
    ):
        for name, values in run(images).items():
            outputs.setdefault(name, []).append(values.numpy())
        labels.append(batch_labels.numpy())
    if not labels:
        raise UserError(f"{description}: no images")
    return {name: np.concatenate(parts) for name, parts in outputs.items()}, np.concatenate(labels)
