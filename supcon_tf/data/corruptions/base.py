"""What every kind of corrupted images is: labelled images for a corruption and a severity."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from supcon_tf.data.decode import decode
from supcon_tf.data.sources.base import Source
from supcon_tf.data.splits import Split
from supcon_tf.errors import UserError

# The strengths of the corruptions are in pixels; ImageNet-C's images were first shrunk to this.
MAX_SHORT_SIDE_PX = 256

Cell = tuple[str, int]
Images = Iterator[tuple[np.ndarray, int]]


@dataclasses.dataclass(frozen=True)
class CorruptedImages:
    """Labelled images of each (corruption, severity).

    Args:
      description: what they are and where from; results of another description are not mixed.
      images: corruption, severity -> (image uint8 [H, W, 3] of any size, label), one by one.
    """

    description: str
    images: Callable[[str, int], Images]


def select_examples(split: Split, *, num_images: int, seed: int) -> tf.data.Dataset:
    """The first images of a split's shuffled order, a short side of at most 256 px, with labels."""
    examples = split.shuffled(seed=seed, start=0, stop=num_images).map(
        lambda image, label: (shrunk(decode(image)), label), num_parallel_calls=tf.data.AUTOTUNE
    )
    return examples.prefetch(tf.data.AUTOTUNE)


def read_images(split: Split, *, num_images: int, seed: int) -> Images:
    """The same, one by one."""
    return select_examples(split, num_images=num_images, seed=seed).as_numpy_iterator()


def shrunk(image: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 3] with a short side of at most 256 px."""
    size = tf.shape(image)[:2]
    short_side = tf.reduce_min(size)
    size = size * tf.minimum(short_side, MAX_SHORT_SIDE_PX) // short_side
    return tf.cast(tf.round(tf.image.resize(image, size, antialias=True)), tf.uint8)


def refuse_missing(
    where: str, cells: Sequence[Cell], is_there: Callable[[str, int], bool], *, fix: str
) -> None:
    """Names the cells that are not there, before the first one is measured.

    Raises:
      UserError: some are missing.
    """
    missing = [f"{name} {severity}" for name, severity in cells if not is_there(name, severity)]
    if missing:
        shown = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        raise UserError(
            f"{where} lacks {len(missing)} of {len(cells)} corruptions and severities: {shown}; "
            f"{fix}, or choose by robustness.run.corruptions and robustness.run.severities"
        )


def check_split(
    where: str, split: Split, class_names: Sequence[str] | None, *, source: Source, num_images: int
) -> None:
    """Refuses a cell of too few images or of other classes, which would falsify a mean.

    Args:
      where: the cell, for people.
      split: its images.
      class_names: of its labels; None where it has numbers only.
      source: with the same classes.
      num_images: how many are needed.

    Raises:
      UserError: it does not fit.
    """
    if class_names is not None and tuple(class_names) != source.class_names:
        odd = sorted(set(class_names) ^ set(source.class_names))
        raise UserError(
            f"{where} has other classes than {source.name!r}"
            + (f", only one of them has {odd[0]!r}" if odd else ", in another order")
            + ": set robustness.run.source to the set that was corrupted"
        )
    if split.num_examples < num_images:
        raise UserError(
            f"{where} has {split.num_examples} images, {num_images} are needed: complete it, or "
            f"set robustness.run.max_images = {split.num_examples}"
        )
