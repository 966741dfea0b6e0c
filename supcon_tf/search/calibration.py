"""Thresholds of an index, measured on images that are not in it."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from supcon_tf.errors import UserError, check_number
from supcon_tf.search.detection import Detection, detection, keeping
from supcon_tf.search.matching import MatchThreshold, match_threshold
from supcon_tf.search.nearest import distances, nearest
from supcon_tf.search.unknown import ClassStatistics, class_statistics

UnknownScore = Literal["knn", "mahalanobis"]

_SHARES = 5
# More images are calibrated on one share instead of all in turn, and on this many at most.
_FEW_IMAGES = 20_000
_MAX_QUERIES = 10_000
_MAX_NEIGHBORS = 10


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Thresholds of an index.

    Args:
      match: when the nearest neighbour has the same label; None with fewer than two classes.
      unknown_score: the score that decides whether an image is unknown, "knn" or "mahalanobis".
      num_neighbors: k of the "knn" score, the Euclidean distance of unit-length embeddings to the
        k-th neighbour.
      thresholds: of each score; an image with a higher score is unknown.
      known_share: share of the calibration images that are not above the thresholds.
      num_images: number of calibration images.
      detection: how well each score separates unknown from calibration images; {} if there
        were none.
      num_unknown: number of unknown images that measured it.
      statistics: of the "mahalanobis" score.
      classes: the labels of the index when it was calibrated.
    """

    match: MatchThreshold | None
    unknown_score: UnknownScore
    num_neighbors: int
    thresholds: dict[str, float]
    known_share: float
    num_images: int
    detection: dict[str, Detection]
    num_unknown: int
    statistics: ClassStatistics
    classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class References:
    """Labelled embeddings that others are compared with.

    Args:
      rows: float32 [n, D] of unit length.
      labels: int64 [n]; -1 for no label.
      num_neighbors: k of the "knn" score, at most n.
      statistics: of the rows; of all as one class if none has a label.
    """

    rows: np.ndarray
    labels: np.ndarray
    num_neighbors: int
    statistics: ClassStatistics

    @classmethod
    def fit(cls, rows: np.ndarray, labels: np.ndarray, num_neighbors: int) -> "References":
        """Computes the statistics."""
        known = labels >= 0 if (labels >= 0).any() else np.ones(len(labels), bool)
        statistics = class_statistics(rows[known], labels[known])
        return cls(rows, labels, min(num_neighbors, len(rows)), statistics)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What is calibrated, for each of n images.

    Args:
      similarities: float32 [n] to the nearest neighbour.
      nearest_labels: int64 [n], the label of that neighbour.
      unknown: the unknown scores, [n] each.
    """

    similarities: np.ndarray
    nearest_labels: np.ndarray
    unknown: dict[str, np.ndarray]


def score(rows: np.ndarray, references: References) -> Scores:
    """Compares rows [n, D] of unit length with the references."""
    similarities, positions = nearest(rows, references.rows, references.num_neighbors)
    return Scores(
        similarities[:, 0],
        references.labels[positions[:, 0]],
        {
            "knn": distances(similarities[:, -1]),
            "mahalanobis": references.statistics.distances(rows),
        },
    )


def default_neighbors(labels: np.ndarray) -> int:
    """k of the "knn" score: 10, or less if that would reach other classes.

    At most half of the class size that 95 % of the labelled images have or exceed.

    Args:
      labels: int64 [n]; -1 for no label.
    """
    _, numbers, counts = np.unique(labels[labels >= 0], return_inverse=True, return_counts=True)
    if not len(counts):
        return _MAX_NEIGHBORS
    size = np.quantile(counts[numbers], 0.05, method="lower")
    return int(np.clip(size // 2, 1, _MAX_NEIGHBORS))


def cross_validated(
    rows: np.ndarray, labels: np.ndarray, *, num_neighbors: int, seed: int
) -> tuple[np.ndarray, Scores]:
    """Scores of a share of the images of each class against the other images.

    Returns:
      int64 [n] positions of the scored images, and their scores.

    Raises:
      UserError: no class has two images.
    """
    parts = []
    for share in _shares(labels, seed):
        references = References.fit(rows[~share], labels[~share], num_neighbors)
        parts.append((np.flatnonzero(share), score(rows[share], references)))
    if not parts:
        raise UserError(
            "an index cannot be calibrated on its images if no class has two: give "
            "calibration images (--calibration_images)"
        )
    return np.concatenate([positions for positions, _ in parts]), Scores(
        np.concatenate([scores.similarities for _, scores in parts]),
        np.concatenate([scores.nearest_labels for _, scores in parts]),
        {
            name: np.concatenate([scores.unknown[name] for _, scores in parts])
            for name in ("knn", "mahalanobis")
        },
    )


def _shares(labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Masks [n] of the images that are scored; a class of one image is never scored."""
    share_of = np.full(len(labels), -1)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            order = np.random.default_rng([seed, int(label) + 1]).permutation(members)
            share_of[order] = np.arange(len(members)) % _SHARES
    for share in range(_SHARES if len(labels) <= _FEW_IMAGES else 1):
        members = np.flatnonzero(share_of == share)
        if len(members) > _MAX_QUERIES:
            members = np.random.default_rng(seed).choice(members, _MAX_QUERIES, replace=False)
        if len(members):
            yield np.isin(np.arange(len(labels)), members)


def calibration(
    known: Scores,
    known_labels: np.ndarray,
    *,
    unknown: Scores | None,
    precision: float,
    known_share: float,
    unknown_score: UnknownScore,
    references: References,
    classes: tuple[str, ...],
) -> Calibration:
    """The thresholds for the scores of calibration images.

    Args:
      known: scores of calibration images.
      known_labels: int64 [n], their labels; -1 for no label.
      unknown: scores of images of other classes, to measure the detection.
      precision: for the match threshold.
      known_share: for the thresholds of the unknown scores.
      unknown_score: the score that decides.
      references: the images of the index.
      classes: the labels of the index.
    """
    check_number("precision", precision, above=0, at_most=1)
    labelled = known_labels >= 0
    match = None
    if labelled.any() and len(classes) > 1:
        is_right = known.nearest_labels[labelled] == known_labels[labelled]
        match = match_threshold(known.similarities[labelled], is_right, precision=precision)
    return Calibration(
        match=match,
        unknown_score=unknown_score,
        num_neighbors=references.num_neighbors,
        thresholds={name: keeping(values, known_share) for name, values in known.unknown.items()},
        known_share=known_share,
        num_images=len(known_labels),
        detection={}
        if unknown is None
        else {
            name: detection(known.unknown[name], unknown.unknown[name]) for name in known.unknown
        },
        num_unknown=0 if unknown is None else len(unknown.similarities),
        statistics=references.statistics,
        classes=classes,
    )
