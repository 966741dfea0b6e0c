"""Splits chosen by the paths of the images, so that adding images moves none."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from supcon_tf.data.splits import check_share


def names_below(root: str | os.PathLike[str], paths: Sequence[str]) -> list[str]:
    """The paths relative to a folder, with "/" on every system; others are unchanged."""
    prefix = os.path.join(root, "")
    return [path.removeprefix(prefix).replace(os.sep, "/") for path in paths]


def hold_out_by_path(
    names: Sequence[str], labels: np.ndarray, share: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits image numbers in two: an image is held out if the hash of its name is below the share.

    So an image is in the same split whatever images are added, removed or relabelled. The price is
    that the share is exact only on average: of n images, a binomial number is held out. Holding out
    the lowest hashes of each class would be exact, but each added image could move another one.
    Only a class with no held-out image, or with nothing else, gets one: of the lowest, or highest,
    hash.

    Args:
      names: relative paths of the images.
      labels, share: as in `splits.hold_out`; the share is an expected one.
      seed: seed of the hash.

    Returns and raises: as `splits.hold_out`.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.data.path_split import hold_out_by_path
      >>> kept, held_out = hold_out_by_path(
      ...     ["a/1.png", "a/2.png", "b/1.png", "b/2.png"], np.array([0, 0, 1, 1]), 0.25, seed=0
      ... )
      >>> len(kept), len(held_out)
      (2, 2)
    """
    check_share(labels, share)
    hashes = np.array([_hash(name, seed) for name in names])
    is_held_out = hashes < share
    in_order = np.argsort(hashes, kind="stable")
    if labels.ndim == 1:
        members = [in_order[labels[in_order] == label] for label in np.unique(labels)]
    else:
        members = [in_order[column[in_order] == 1] for column in labels.T]
    for numbers in members:
        if numbers.size and not is_held_out[numbers].any():
            is_held_out[numbers[0]] = True
    for numbers in members:  # Last, because every class needs an image to train on.
        if numbers.size and is_held_out[numbers].all():
            is_held_out[numbers[-1]] = False
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _hash(name: str, seed: int) -> float:
    """A hash in [0, 1). File names may have bytes that are not UTF-8."""
    content = f"{seed}/{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=6).digest()) / 2**48
