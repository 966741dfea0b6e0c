"""Corrupted images in CIFAR-10-C's published arrays: a file per corruption, and the labels."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from supcon_tf.data.corruptions.base import (
    Cell,
    CorruptedImages,
    Images,
    check_split,
    read_images,
    refuse_missing,
)
from supcon_tf.data.corruptions.imagenet_c import SEVERITIES
from supcon_tf.data.sources.base import Source
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError


def arrays(
    source: Source,
    *,
    cells: list[Cell],
    num_images: int,
    seed: int,
    root: str | None = None,
) -> CorruptedImages:
    """CIFAR-10-C or CIFAR-100-C as published, read from disk as they are needed.

    root/fog.npy holds uint8 [5 n, 32, 32, 3], the n test images at severity 1, then at 2, and so
    on; root/labels.npy the class numbers [5 n] in the same order.

    Args:
      source: of the same classes in the same order.
      cells: what must be there.
      num_images: the first so many of a shuffled order, the same images at all severities.
      seed: of that order.
      root: the folder of these files.

    Raises:
      UserError: corruptions without a file, or no labels.
      UserError: no root, arrays of another shape or type, or too few images.
    """
    if root is None:
        raise UserError("which folder? say corruptions.arrays.root = '/data/CIFAR-10-C'")
    base = Path(root).expanduser()
    refuse_missing(
        repr(root),
        cells,
        lambda corruption, _: (base / f"{corruption}.npy").is_file(),
        fix="corruptions.arrays.root must have files such as fog.npy",
    )
    if not (base / "labels.npy").is_file():
        raise UserError(f"{root!r} lacks labels.npy, the class numbers of its images")
    labels = np.load(base / "labels.npy", allow_pickle=False).astype(np.int64)
    if labels.ndim != 1 or not 0 <= labels.min() <= labels.max() < source.num_classes:
        raise UserError(
            f"{root!r}/labels.npy must have class numbers [n] in 0 ... {source.num_classes - 1}, "
            f"got shape {labels.shape}, {labels.min()} to {labels.max()}"
        )

    def images(corruption: str, severity: int) -> Images:
        file = base / f"{corruption}.npy"
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
        is_whole = len(pixels) == len(labels) and len(pixels) % len(SEVERITIES) == 0
        if pixels.dtype != np.uint8 or pixels.shape[3:] != (3,) or not is_whole:
            raise UserError(
                f"{str(file)!r} must be uint8 [{len(labels)}, H, W, 3], as labels.npy has so many, "
                f"got {pixels.dtype} {list(pixels.shape)}"
            )
        size = len(pixels) // len(SEVERITIES)
        part = slice((severity - 1) * size, severity * size)

        def read(number: np.ndarray) -> np.ndarray:
            return np.array(pixels[part][number])

        def read_in_graph(number: tf.Tensor) -> tf.Tensor:
            image = tf.numpy_function(read, [number], tf.uint8, stateful=False)
            return tf.ensure_shape(image, pixels.shape[1:])

        split = IndexedSplit(labels[part], read_in_graph)
        check_split(str(file), split, None, source=source, num_images=num_images)
        return read_images(split, num_images=num_images, seed=seed)

    return CorruptedImages(f"arrays {base.resolve()}", images)
