"""Corrupted images in the published arrays of CIFAR-10-C: one file per corruption, and labels."""

import numpy as np

from supcon_tf.data.array_files import load_array, split_of_array
from supcon_tf.data.corruptions.base import (
    Cell,
    CorruptedImages,
    Images,
    check_cells,
    check_source_of,
    check_split,
    read_images,
)
from supcon_tf.data.imagenet_c import SEVERITIES
from supcon_tf.data.sources.base import Source
from supcon_tf.errors import UserError


def arrays(
    source: Source,
    *,
    cells: list[Cell],
    num_images: int,
    seed: int,
    root: str | None = None,
) -> CorruptedImages:
    """CIFAR-10-C or CIFAR-100-C as published, memory-mapped.

    root/fog.npy holds uint8 [5 n, 32, 32, 3]: the n test images at severity 1, then at 2, and so
    on. root/labels.npy holds the class numbers [5 n] in the same order.

    Args:
      source: source with the same classes in the same order.
      cells: corruptions and severities that are needed.
      num_images: number of images of each, the first of a shuffled order.
      seed: seed of that order.
      root: folder of these files.

    Raises:
      UserError: no root, missing files, arrays of another shape or type, or too few images.
    """
    base = check_source_of("corruptions.arrays.root", source, root, example="/data/CIFAR-10-C")
    check_cells(
        repr(root),
        cells,
        lambda corruption, _: (base / f"{corruption}.npy").is_file(),
        fix="corruptions.arrays.root must have files such as fog.npy",
    )
    if not (base / "labels.npy").is_file():
        raise UserError(f"{root!r} lacks labels.npy, the class numbers of its images")
    labels = load_array(base / "labels.npy")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
        raise UserError(
            f"{root!r}/labels.npy must be integers [n], got {labels.dtype} {labels.shape}"
        )
    labels = labels.astype(np.int64)
    if not 0 <= labels.min() <= labels.max() < source.num_classes:
        raise UserError(
            f"{root!r}/labels.npy must have class numbers in 0 ... {source.num_classes - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )

    def images(corruption: str, severity: int) -> Images:
        file = base / f"{corruption}.npy"
        pixels = load_array(file)
        is_whole = len(pixels) == len(labels) and len(pixels) % len(SEVERITIES) == 0
        if pixels.dtype != np.uint8 or pixels.shape[3:] != (3,) or not is_whole:
            raise UserError(
                f"{str(file)!r} must be uint8 [{len(labels)}, H, W, 3], as labels.npy has "
                f"{len(labels)} labels, got {pixels.dtype} {list(pixels.shape)}"
            )
        size = len(pixels) // len(SEVERITIES)
        part = slice((severity - 1) * size, severity * size)
        split = split_of_array(str(file), pixels[part], labels[part])
        check_split(str(file), split, None, source=source, num_images=num_images)
        return read_images(split, num_images=num_images, seed=seed)

    return CorruptedImages(f"arrays {base.resolve()}", images)
