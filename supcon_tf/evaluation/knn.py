"""Classifiers that compare frozen embeddings with labelled references."""

from typing import Any

import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError, check_integer, check_number
from supcon_tf.evaluation.metrics import as_array, class_numbers


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
    """Class probabilities by a weighted vote of the nearest references.

    A neighbour votes with weight exp(cosine similarity / temperature), as in Wu et al. 2018,
    "Unsupervised Feature Learning via Non-Parametric Instance Discrimination".

    Args:
      embeddings: [n, D] of the examples to classify.
      reference_embeddings: [m, D].
      reference_labels: integers [m] or [m, 1] from 0 to C - 1, or [m, C] of 0 and 1 for references
        with several labels.
      num_classes: C.
      num_neighbors: number of voting neighbours, at most m.
      temperature: > 0; smaller values give the nearest neighbours more weight.
      rows_per_block: examples per matrix product; the memory is proportional to this times m.

    Returns:
      float32 [n, C]; rows sum to one if every reference has one label.

    Raises:
      UserError: no examples or references, shapes that disagree, embeddings that are not finite,
        labels outside 0 to C - 1, or an option out of range.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import knn_probabilities
      >>> references = np.array([[1., 0.], [0., 1.]], np.float32)
      >>> votes = knn_probabilities(
      ...     references, references, np.array([0, 1]), num_classes=2, num_neighbors=1)
      >>> votes.tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    check_integer("num_neighbors", num_neighbors, at_least=1)
    check_integer("rows_per_block", rows_per_block, at_least=1)
    rows, references = _unit_rows(embeddings, reference_embeddings, temperature)
    is_multi_label = _is_multi_label(reference_labels, num_classes)
    labels = tf.constant(
        _label_rows(reference_labels, len(references))
        if is_multi_label
        else _labels(reference_labels, len(references), num_classes)
    )
    blocks = []
    for start in range(0, len(rows), rows_per_block):
        block = rows[start : start + rows_per_block]
        similarities = tf.matmul(block, references, transpose_b=True)
        nearest, indices = tf.math.top_k(similarities, k=min(num_neighbors, len(references)))
        votes = tf.nn.softmax(nearest / temperature)
        neighbor_labels = tf.gather(labels, indices)
        label_rows = (
            tf.cast(neighbor_labels, tf.float32)
            if is_multi_label
            else tf.one_hot(neighbor_labels, num_classes)
        )
        # [n, k], [n, k, C] -> [n, C]
        blocks.append(tf.einsum("nk,nkc->nc", votes, label_rows).numpy())
    return np.concatenate(blocks)


def prototype_probabilities(
    embeddings: np.ndarray,
    reference_embeddings: np.ndarray,
    reference_labels: np.ndarray,
    *,
    num_classes: int,
    temperature: float = 0.1,
) -> np.ndarray:
    """Class probabilities by cosine similarity to the prototype of each class.

    softmax over the classes c of cos(z, prototype_c) / temperature, where prototype_c is the mean
    of z / ||z|| over the references of class c: Snell et al. 2017, "Prototypical Networks", with
    cosines. The temperature does not change which class is likeliest.

    Args:
      embeddings: [n, D] of the examples to classify.
      reference_embeddings: [m, D].
      reference_labels: integers [m] or [m, 1], from 0 to C - 1.
      num_classes: C. A class without references has probability 0.
      temperature: > 0.

    Returns:
      float32 [n, C], rows sum to one.

    Raises:
      UserError: no examples or references, shapes that disagree, embeddings that are not finite,
        labels outside 0 to C - 1, or an option out of range.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.evaluation import prototype_probabilities
      >>> references = np.array([[1., 0.], [2., 0.2], [0., 3.]])
      >>> near = prototype_probabilities(
      ...     np.array([[0.9, 0.2]]), references, np.array([0, 0, 1]), num_classes=2)
      >>> near.argmax(axis=1).tolist()
      [0]
    """
    rows, references = _unit_rows(embeddings, reference_embeddings, temperature)
    labels = _labels(reference_labels, len(references), num_classes)
    sums = tf.math.unsorted_segment_sum(references, labels, num_classes)
    similarities = tf.matmul(rows, tf.math.l2_normalize(sums, axis=1), transpose_b=True)
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
    """Class probabilities by a weighted vote of all references: soft nearest neighbours.

    p = softmax(cos(z, references) / temperature) @ one_hot(reference_labels), the evaluation of
    Assran et al. 2020, "Supervision Accelerates Pre-training" (SuNCEt), arXiv 2006.10803.

    Args:
      embeddings: [n, D] of the examples to classify.
      reference_embeddings: [m, D].
      reference_labels: integers [m] or [m, 1], from 0 to C - 1.
      num_classes: C.
      temperature: > 0; smaller values give the nearest references more weight.
      rows_per_block: examples per matrix product; the memory is proportional to this times m.

    Returns:
      float32 [n, C], rows sum to one.

    Raises:
      UserError: no examples or references, shapes that disagree, embeddings that are not finite,
        labels outside 0 to C - 1, or an option out of range.

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
    check_integer("rows_per_block", rows_per_block, at_least=1)
    rows, references = _unit_rows(embeddings, reference_embeddings, temperature)
    labels = _labels(reference_labels, len(references), num_classes)
    blocks = []
    for start in range(0, len(rows), rows_per_block):
        block = rows[start : start + rows_per_block]
        similarities = tf.matmul(block, references, transpose_b=True)
        votes = tf.transpose(tf.nn.softmax(similarities / temperature))
        # [m, n] -> [C, n] -> [n, C]
        class_votes = tf.math.unsorted_segment_sum(votes, labels, num_classes)
        blocks.append(tf.transpose(class_votes).numpy())
    return np.concatenate(blocks)


def _unit_rows(
    embeddings: Any, reference_embeddings: Any, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Both as float32 rows of length 1."""
    check_number("temperature", temperature, above=0)
    rows = []
    for name, values in (
        ("embeddings", embeddings),
        ("reference_embeddings", reference_embeddings),
    ):
        array = tf.cast(tf.convert_to_tensor(embedding_rows(name, values)), tf.float32)
        # Also rejects numbers whose squares overflow, which would normalise to zero.
        is_finite = np.isfinite(tf.reduce_sum(tf.square(array), axis=1))
        if not is_finite.all():
            raise UserError(
                f"{name} must be finite, got {(~is_finite).sum()} of {len(is_finite)} rows that "
                f"are not, first row {is_finite.argmin()}"
            )
        # Dividing by the largest entry first avoids underflow.
        largest = tf.reduce_max(tf.abs(array), axis=1, keepdims=True)
        rows.append(tf.math.l2_normalize(array / tf.where(largest > 0, largest, 1.0), axis=1))
    if rows[0].shape[1] != rows[1].shape[1]:
        raise UserError(
            "embeddings and reference_embeddings must have the same dimension, got "
            f"{rows[0].shape[1]} and {rows[1].shape[1]}"
        )
    return rows[0], rows[1]


def embedding_rows(name: str, values: Any) -> np.ndarray:
    """Embeddings as an array [n, D].

    Raises:
      UserError: another rank or dtype, no rows or no columns.
    """
    numbers = as_array(name, values)
    # "V" is bfloat16.
    if numbers.ndim != 2 or 0 in numbers.shape or numbers.dtype.kind not in "iufV":
        raise UserError(
            f"{name} must be numbers [n, D] with n >= 1 and D >= 1, got {numbers.dtype} of shape "
            f"{numbers.shape}"
        )
    return numbers


def _is_multi_label(labels: Any, num_classes: int) -> bool:
    """Whether these are rows of 0 and 1 [m, C]; a single column of zeros is class 0."""
    array = as_array("reference_labels", labels)
    if array.ndim != 2:
        return False
    if array.shape[1] not in (1, num_classes):
        raise UserError(
            f"reference_labels must be integers [m] or rows [m, {num_classes}] of num_classes, got "
            f"shape {array.shape}"
        )
    return array.shape[1] == num_classes and (num_classes > 1 or bool(array.any()))


def _label_rows(labels: Any, num_references: int) -> np.ndarray:
    rows = as_array("reference_labels", labels)
    is_other = ~np.isin(rows, (0, 1))
    if is_other.any():
        raise UserError(f"reference_labels [m, C] must be 0 or 1, got {rows[is_other][0]}")
    _check_count(rows, num_references)
    return rows


def _labels(labels: Any, num_references: int, num_classes: int) -> np.ndarray:
    check_integer("num_classes", num_classes, at_least=1)
    numbers = class_numbers(labels, num_classes=num_classes, name="reference_labels")
    _check_count(numbers, num_references)
    return numbers


def _check_count(labels: np.ndarray, num_references: int) -> None:
    if len(labels) != num_references:
        raise UserError(
            f"reference_labels must have one entry for each of {num_references} "
            f"reference_embeddings, got {len(labels)}"
        )
