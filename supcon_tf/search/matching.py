"""The similarity from which on the nearest neighbour has the same label."""

import dataclasses

import numpy as np

from supcon_tf.errors import UserError, check_number


@dataclasses.dataclass(frozen=True)
class MatchThreshold:
    """A similarity threshold and what it reached on the calibration images.

    Args:
      wanted_precision: the precision to reach.
      similarity: a nearest neighbour of at least this similarity is a match; None if no threshold
        reaches the wanted precision.
      precision: share of the matches that have the right label; without a threshold, the highest
        precision of any threshold.
      recall: share of the nearest neighbours with the right label that are matches; 0 without a
        threshold.
      num_matches: number of matches; 0 without a threshold.
      num_images: number of calibration images.
    """

    wanted_precision: float
    similarity: float | None
    precision: float
    recall: float
    num_matches: int
    num_images: int


def match_threshold(
    similarities: np.ndarray, is_right: np.ndarray, *, precision: float = 0.95
) -> MatchThreshold:
    """The lowest similarity whose matches reach a wanted precision.

    The matches of a threshold t are the images with similarity >= t. Of all t with
    #(right matches) / #(matches) >= precision, the lowest has the highest recall.

    Args:
      similarities: [n] of each image to its nearest neighbour.
      is_right: bool [n], whether that neighbour has the image's label.
      precision: within (0, 1]. Defaults to 0.95.

    Raises:
      UserError: a precision outside (0, 1], no images, or shapes that disagree.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.search import match_threshold
      >>> threshold = match_threshold(
      ...     np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]), precision=0.9)
      >>> threshold.similarity, threshold.precision, round(threshold.recall, 3)
      (0.8, 1.0, 0.667)
    """
    check_number("precision", precision, above=0, at_most=1)
    similarities, is_right = np.asarray(similarities), np.asarray(is_right, bool)
    if similarities.ndim != 1 or similarities.shape != is_right.shape or not len(similarities):
        raise UserError(
            "similarities and is_right must both be [n] with n >= 1, got shapes "
            f"{similarities.shape} and {is_right.shape}"
        )
    order = np.argsort(-similarities, kind="stable")
    thresholds, right = similarities[order], np.cumsum(is_right[order])
    # Images of equal similarity become matches together.
    last_of_ties = np.append(np.diff(thresholds) != 0, True)
    thresholds, right = thresholds[last_of_ties], right[last_of_ties]
    matches = np.flatnonzero(last_of_ties) + 1
    reached = np.flatnonzero(right / matches >= precision)
    if not len(reached):
        highest = float((right / matches).max())
        return MatchThreshold(precision, None, highest, 0.0, 0, len(is_right))
    lowest = reached[-1]
    return MatchThreshold(
        wanted_precision=precision,
        similarity=float(thresholds[lowest]),
        precision=float(right[lowest] / matches[lowest]),
        recall=float(right[lowest] / right[-1]),
        num_matches=int(matches[lowest]),
        num_images=len(is_right),
    )
