"""How many images of a batch have another image of their class, and batches in which all have."""

import math

import numpy as np

from supcon_tf.errors import check_integer

# Largest share of images without another one of their class in a batch that is left as it is.
MAX_SHARE_ALONE = 0.05
# With 3 or more positives the published accuracy hardly changes (Khosla et al. 2020, table 4: 1, 3,
# 5, 7 positives give 69.3, 76.6, 78.0, 78.4).
WANTED_PER_CLASS = 4


def share_without_positive(labels: np.ndarray, batch_size: int) -> float:
    """Expected share of a random batch's images that have no other image of their class in it.

    sum_c n_c / n  C(n - n_c, B - 1) / C(n - 1, B - 1) for classes of n_c of n images: the other
    B - 1 images of a batch are drawn without replacement.

    Args:
      labels: class numbers, integers [n].
      batch_size: B, at most n.

    Returns:
      The share, within 0 to 1.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.data.positives import share_without_positive
      >>> round(share_without_positive(np.repeat(np.arange(28), 20), batch_size=16), 2)
      0.59
    """
    _, counts = np.unique(labels, return_counts=True)
    size, others = len(labels), batch_size - 1

    def alone(count: int) -> float:
        if others > size - count:
            return 0.0
        ways = (math.lgamma(n + 1) - math.lgamma(n - others + 1) for n in (size - count, size - 1))
        return math.exp(next(ways) - next(ways))

    return sum(int(count) / size * alone(int(count)) for count in counts)


def balanced_samples_per_class(labels: np.ndarray, batch_size: int) -> int | None:
    """Images of each class for class-balanced batches: the fewest that are 4 or more.

    Fewer than 4 where the batch or the smallest class has no more. A batch has two classes or more,
    as a loss needs negatives.

    Args:
      labels: class numbers, integers [n].
      batch_size: a multiple of the result.

    Returns:
      The number of images, at least 2; None if no number gives whole batches.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.data.positives import balanced_samples_per_class
      >>> balanced_samples_per_class(np.repeat(np.arange(28), 20), batch_size=64)
      4
    """
    check_integer("batch_size", batch_size, at_least=1)
    classes, counts = np.unique(labels, return_counts=True)
    possible = [
        samples
        for samples in range(2, min(batch_size, int(counts.min())) + 1)
        if batch_size % samples == 0 and 2 <= batch_size // samples <= len(classes)
    ]
    enough = [samples for samples in possible if samples >= WANTED_PER_CLASS]
    return min(enough, default=max(possible, default=None))
