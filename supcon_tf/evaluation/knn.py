"""Nearest neighbours on frozen embeddings."""

import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.evaluation.metrics import class_numbers


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
      UserError: temperature or number of neighbours not positive, or labels of another shape.

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
        raise UserError(
            f"temperature must be > 0 and num_neighbors >= 1, got {temperature} and {num_neighbors}"
        )
    references = tf.math.l2_normalize(tf.constant(reference_embeddings, tf.float32), axis=1)
    labels = np.asarray(reference_labels)
    if labels.ndim == 2 and labels.shape[1] not in (1, num_classes):
        raise UserError(
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


def prototype_probabilities(
    embeddings: np.ndarray,
    reference_embeddings: np.ndarray,
    reference_labels: np.ndarray,
    *,
    num_classes: int,
    temperature: float = 0.1,
) -> np.ndarray:
    """Class probabilities by the nearest prototype, the mean direction of a class's references.

    softmax over the classes of cos(z, mean of the class's z / ||z||) / temperature, as in Snell et
    al. 2017, "Prototypical Networks", with cosines. The temperature does not change which class is
    likeliest.

    Args:
      embeddings: [n, D] of the examples to classify.
      reference_embeddings: [m, D].
      reference_labels: integers [m] or [m, 1].
      num_classes: C. A class without references has probability 0.
      temperature: > 0.

    Returns:
      float32 [n, C], rows sum to one.

    Raises:
      UserError: temperature not positive, no references, or labels of another shape or of floats.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import prototype_probabilities
      >>> references = np.array([[1., 0.], [2., 0.2], [0., 3.]])
      >>> near = prototype_probabilities(
      ...     np.array([[0.9, 0.2]]), references, np.array([0, 0, 1]), num_classes=2)
      >>> near.argmax(axis=1).tolist()
      [0]
    """
    labels = class_numbers(reference_labels)
    _check(temperature, labels)
    references = _unit_rows(reference_embeddings)
    sums = tf.math.unsorted_segment_sum(references, labels, num_classes)
    similarities = tf.matmul(_unit_rows(embeddings), _unit_rows(sums), transpose_b=True)
    has_references = np.isin(np.arange(num_classes), labels)
    logits = tf.where(has_references, similarities / temperature, -np.inf)
    return tf.nn.softmax(logits, axis=1).numpy()


def soft_neighbor_probabilities(
    embeddings: np.ndarray,
    reference_embeddings: np.ndarray,
    reference_labels: np.ndarray,
    *,
    num_classes: int,
    temperature: float = 0.1,
    rows_per_block: int = 1024,
) -> np.ndarray:
    """Class probabilities by a vote of all references: a soft nearest-neighbour classifier.

    p = softmax(cos(z, references) / temperature) @ one_hot(reference_labels), as Assran et al.
    2020, "Supervision Accelerates Pre-training" (SuNCEt), arXiv 2006.10803, evaluate.

    Args:
      embeddings: [n, D] of the examples to classify.
      reference_embeddings: [m, D].
      reference_labels: integers [m] or [m, 1].
      num_classes: C.
      temperature: > 0; a smaller one listens to the nearest more.
      rows_per_block: examples at a time, which bounds the memory to that times m.

    Returns:
      float32 [n, C], rows sum to one.

    Raises:
      UserError: temperature not positive, no references, or labels of another shape or of floats.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import soft_neighbor_probabilities
      >>> references = np.array([[1., 0.], [0., 1.]])
      >>> votes = soft_neighbor_probabilities(
      ...     references, references, np.array([0, 1]), num_classes=2, temperature=1.0)
      >>> print(votes.round(4))
      [[0.7311 0.2689]
       [0.2689 0.7311]]
    """
    labels = class_numbers(reference_labels)
    _check(temperature, labels)
    references = _unit_rows(reference_embeddings)
    blocks = []
    for start in range(0, len(embeddings), rows_per_block):
        rows = _unit_rows(embeddings[start : start + rows_per_block])
        similarities = tf.matmul(rows, references, transpose_b=True)
        votes = tf.transpose(tf.nn.softmax(similarities / temperature))
        # [m, n] -> [C, n] -> [n, C]
        of_classes = tf.math.unsorted_segment_sum(votes, labels, num_classes)
        blocks.append(tf.transpose(of_classes).numpy())
    return np.concatenate(blocks)


def _unit_rows(rows: np.ndarray | tf.Tensor) -> tf.Tensor:
    return tf.math.l2_normalize(tf.cast(rows, tf.float32), axis=1)


def _check(temperature: float, labels: np.ndarray) -> None:
    if temperature <= 0 or not len(labels):
        raise UserError(
            "temperature must be > 0 and there must be references, got "
            f"{temperature} and {len(labels)}"
        )
