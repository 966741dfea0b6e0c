"""Nearest neighbours on frozen embeddings."""

import numpy as np
import tensorflow as tf

from supcon_tf.evaluation.class_numbers import class_numbers


def knn_probabilities(
    embeddings: np.ndarray,
    reference_embeddings: np.ndarray,
    reference_labels: np.ndarray,
    *,
    num_classes: int,
    num_neighbors: int = 20,
    temperature: float = 0.07,
    rows_per_block: int = 1024,
) -> np.ndarray:
    """Class probabilities by a vote of the nearest references.

    A neighbour's vote weighs exp(cosine similarity / temperature), as in Wu et al. 2018,
    "Unsupervised Feature Learning via Non-Parametric Instance Discrimination".

    Args:
      embeddings: [n, D] of the examples to classify.
      reference_embeddings: [m, D].
      reference_labels: integers [m] or [m, 1], or [m, C] of 0 and 1 for references with several
        labels.
      num_classes: C.
      num_neighbors: how many vote; at most m do.
      temperature: > 0; a smaller one listens to the nearest more.
      rows_per_block: examples at a time, which bounds the memory to that times m.

    Returns:
      float32 [n, C]; rows sum to one where every reference has one label.

    Raises:
      ValueError: temperature or number of neighbours not positive, or labels of another shape.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import knn_probabilities
      >>> references = np.array([[1., 0.], [0., 1.]], np.float32)
      >>> votes = knn_probabilities(
      ...     references, references, np.array([0, 1]), num_classes=2, num_neighbors=1)
      >>> votes.tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    if temperature <= 0 or num_neighbors < 1:
        raise ValueError(
            f"temperature must be > 0 and num_neighbors >= 1, got {temperature} and {num_neighbors}"
        )
    references = tf.math.l2_normalize(tf.constant(reference_embeddings, tf.float32), axis=1)
    labels = np.asarray(reference_labels)
    if labels.ndim == 2 and labels.shape[1] not in (1, num_classes):
        raise ValueError(
            f"reference_labels must be integers [m] or rows [m, {num_classes}] of num_classes, got "
            f"shape {labels.shape}"
        )
    has_rows = labels.ndim == 2 and labels.shape[1] == num_classes
    labels = tf.constant(labels if has_rows else class_numbers(labels))
    blocks = []
    for start in range(0, len(embeddings), rows_per_block):
        rows = tf.constant(embeddings[start : start + rows_per_block], tf.float32)
        similarities = tf.matmul(tf.math.l2_normalize(rows, axis=1), references, transpose_b=True)
        nearest, numbers = tf.math.top_k(similarities, k=min(num_neighbors, len(references)))
        votes = tf.nn.softmax(nearest / temperature)
        of_nearest = tf.gather(labels, numbers)
        rows_of_labels = (
            tf.cast(of_nearest, tf.float32) if has_rows else tf.one_hot(of_nearest, num_classes)
        )
        # [n, k], [n, k, C] -> [n, C]
        blocks.append(tf.einsum("nk,nkc->nc", votes, rows_of_labels).numpy())
    return np.concatenate(blocks)
