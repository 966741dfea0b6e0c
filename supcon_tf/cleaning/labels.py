"""Likely label errors and overlapping classes, from the labels of the nearest neighbours."""

import dataclasses

import numpy as np

# As `evaluation.knn_probabilities`.
_TEMPERATURE = 0.07


@dataclasses.dataclass(frozen=True)
class LabelError:
    """An image whose label is likely wrong.

    Args:
      image: its number.
      label: its class number.
      suggestion: the class number that it likely has.
      margin: probability of the suggestion minus that of the label, within [-1, 1].
    """

    image: int
    label: int
    suggestion: int
    margin: float


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Two classes whose images are neighbours.

    Args:
      first, second: class numbers, first < second.
      share: mean of the probability of `second` over the images of `first`, and of the reverse.
    """

    first: int
    second: int
    share: float


def neighbor_probabilities(
    similarities: np.ndarray, neighbor_labels: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Class probabilities of images by a vote of their neighbours, without the images themselves.

    A neighbour votes with weight exp(cosine similarity / 0.07), as in `knn_probabilities`.

    Args:
      similarities: [n, k] to the nearest other images.
      neighbor_labels: int [n, k], their class numbers.
      num_classes: C.

    Returns:
      float64 [n, C], rows sum to one.
    """
    logits = similarities.astype(np.float64) / _TEMPERATURE
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = np.zeros((len(similarities), num_classes))
    rows = np.repeat(np.arange(len(similarities)), similarities.shape[1])
    np.add.at(probabilities, (rows, neighbor_labels.ravel()), weights.ravel())
    return probabilities / weights.sum(axis=1, keepdims=True)


def label_errors(probabilities: np.ndarray, labels: np.ndarray) -> list[LabelError]:
    """Images that confident learning finds, the likeliest error first.

    The threshold of class j is the mean probability of j over the images labelled j. An image is
    confidently of the class with the highest probability among those that reach their threshold.
    Of the n_y images labelled y, about n_y C[y, j] / sum_k C[y, k] are of class j, where C[y, j]
    counts the confident ones; those with the largest margins p_j - p_y > 0 are likely errors.
    Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", prune by
    noise rate.

    Args:
      probabilities: [n, C], each image's own label left out.
      labels: int [n].

    Example:
      >>> import numpy as np
      >>> from supcon_tf.cleaning import label_errors
      >>> probabilities = np.array([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.75, 0.25], [0.2, 0.8]])
      >>> label_errors(probabilities, np.array([0, 0, 1, 1, 1]))
      [LabelError(image=3, label=1, suggestion=0, margin=0.5)]
    """
    thresholds = np.array(
        [
            probabilities[labels == c, c].mean() if (labels == c).any() else np.inf
            for c in range(probabilities.shape[1])
        ]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1)
    is_confident = confident.max(axis=1) >= 0
    suggestions = confident.argmax(axis=1)
    best: dict[int, LabelError] = {}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        counted = suggestions[members[is_confident[members]]]
        for suggestion in np.unique(counted[counted != label]):
            share = (counted == suggestion).mean()
            margins = probabilities[members, suggestion] - probabilities[members, label]
            first = np.argsort(-margins, kind="stable")[: round(share * len(members))]
            for i in first[margins[first] > 0]:
                image, margin = int(members[i]), float(margins[i])
                if image not in best or margin > best[image].margin:
                    best[image] = LabelError(image, int(label), int(suggestion), margin)
    return sorted(best.values(), key=lambda error: (-error.margin, error.image))


def class_overlaps(
    probabilities: np.ndarray, labels: np.ndarray, *, at_least: float = 0.01
) -> list[Overlap]:
    """Pairs of classes with a share of at least `at_least`, the largest first."""
    num_classes = probabilities.shape[1]
    means = np.zeros((num_classes, num_classes))
    for c in np.unique(labels):
        means[c] = probabilities[labels == c].mean(axis=0)
    shares = (means + means.T) / 2
    pairs = [
        Overlap(int(first), int(second), float(shares[first, second]))
        for first, second in zip(*np.triu_indices(num_classes, 1), strict=True)
        if shares[first, second] >= at_least
    ]
    return sorted(pairs, key=lambda pair: -pair.share)
