"""Pairs of images whose pixels are nearly the same."""

import dataclasses

import numpy as np

from supcon_tf.search.nearest import nearest

# Copies that are found of one image, for each variant.
_MAX_COPIES = 10


@dataclasses.dataclass(frozen=True)
class DuplicatePair:
    """Two images that look the same.

    Args:
      first, second: numbers of the images, first < second.
      similarity: the highest correlation of their signatures.
    """

    first: int
    second: int
    similarity: float


def duplicate_pairs(signatures: np.ndarray, *, threshold: float) -> list[DuplicatePair]:
    """Pairs with a similarity of at least `threshold`, the most similar first.

    The similarity of two images is the highest correlation of the whole of one of them with a
    variant of the other one: the whole, its middle, or one of these mirrored.

    Args:
      signatures: float32 [n, V, D] of unit length or zero: see `images.signatures`; the whole image
        is variant 0.
      threshold: within (0, 1].
    """
    highest: dict[tuple[int, int], float] = {}
    for variant in range(signatures.shape[1]):
        # One more, as an image finds itself.
        similarities, positions = nearest(signatures[:, variant], signatures[:, 0], _MAX_COPIES + 1)
        for row, column in zip(*np.nonzero(similarities >= threshold), strict=True):
            first, second = sorted((int(row), int(positions[row, column])))
            if first != second:
                similarity = float(similarities[row, column])
                highest[first, second] = max(similarity, highest.get((first, second), 0.0))
    pairs = [DuplicatePair(*images, similarity) for images, similarity in highest.items()]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))
