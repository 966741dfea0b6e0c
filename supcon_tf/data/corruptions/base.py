"""CorruptedImages: labelled images of each corruption and severity."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from supcon_tf.data.decode import decode
from supcon_tf.data.sources.base import Source, check_source
from supcon_tf.data.splits import Split
from supcon_tf.errors import UserError, check_text
from supcon_tf.files import expanded

# Some corruptions have a strength in pixels; ImageNet-C's images were first shrunk to this size.
MAX_SHORT_SIDE_PX = 256

Cell = tuple[str, int]
Images = Iterator[tuple[np.ndarray, int]]


@dataclasses.dataclass(frozen=True)
class CorruptedImages:
    """Labelled images of each (corruption, severity).

    Args:
      description: kind and location; results of different descriptions are not mixed.
      images: corruption, severity -> iterator over (image uint8 [H, W, 3] of any size, label).
    """

    description: str
    images: Callable[[str, int], Images]


def select_examples(split: Split, *, num_images: int, seed: int) -> tf.data.Dataset:
    """The first images of a split's shuffled order, shrunk to 256 px, and their labels."""
    examples = split.shuffled(seed=seed, start=0, stop=num_images).map(
        lambda image, label: (shrink(decode(image)), label), num_parallel_calls=tf.data.AUTOTUNE
    )
    return examples.prefetch(tf.data.AUTOTUNE)


def read_images(split: Split, *, num_images: int, seed: int) -> Images:
    """Iterates over `select_examples`."""
    return select_examples(split, num_images=num_images, seed=seed).as_numpy_iterator()


def shrink(image: tf.Tensor) -> tf.Tensor:
    """Shrinks an image to a short side of at most 256 px: uint8 [H, W, 3]."""
    size = tf.shape(image)[:2]
    short_side = tf.reduce_min(size)
    size = size * tf.minimum(short_side, MAX_SHORT_SIDE_PX) // short_side
    return tf.cast(tf.round(tf.image.resize(image, size, antialias=True)), tf.uint8)


def check_source_of(setting: str, source: Source, root: str | None, *, example: str) -> Path:
    """The root folder of published corrupted images.

    Args:
      setting: gin name of the root.
      source: whose classes they have.
      root: the folder.
      example: of a root, for the message.

    Raises:
      UserError: no root, one that is not a folder, or a source without labels.
    """
    check_labels(source)
    if root is None:
        raise UserError(f"which folder of corrupted images? Set {setting} = {example!r}")
    check_text(setting, root, example=example)
    if not (base := expanded(root)).is_dir():
        raise UserError(f"no folder {root!r}: set {setting} to the folder of corrupted images")
    return base


def check_labels(source: Source) -> None:
    """Raises a UserError unless the value is a source of images with labels."""
    check_source("robustness.run.source", source)
    if not source.has_labels:
        raise UserError(
            f"robustness needs labels, but {source.name!r} has none: set robustness.run.source to "
            "a source with labels"
        )


def check_cells(
    where: str, cells: Sequence[Cell], exists: Callable[[str, int], bool], *, fix: str
) -> None:
    """Raises a UserError that lists the missing cells, before the first one is measured."""
    missing = [f"{name} {severity}" for name, severity in cells if not exists(name, severity)]
    if missing:
        shown = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        raise UserError(
            f"{where} lacks {len(missing)} of {len(cells)} corruptions and severities: {shown}; "
            f"{fix}, or choose by robustness.run.corruptions and robustness.run.severities"
        )


def check_split(
    where: str, split: Split, class_names: Sequence[str] | None, *, source: Source, num_images: int
) -> None:
    """Raises a UserError for a cell of too few images or of other classes.

    Args:
      where: name of the cell in messages.
      split: images of the cell.
      class_names: names of its labels; None if it has numbers only.
      source: source of the same classes.
      num_images: number of images that are needed.
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
