"""Corrupted images in ImageNet-C's published folders: corruption/severity/class/image."""

from pathlib import Path

from supcon_tf.data.corruptions.base import (
    Cell,
    CorruptedImages,
    Images,
    check_split,
    read_images,
    refuse_missing,
)
from supcon_tf.data.image_files import images_by_class
from supcon_tf.data.sources.base import Source
from supcon_tf.data.sources.folder import folder_split
from supcon_tf.errors import UserError


def folder(
    source: Source,
    *,
    cells: list[Cell],
    num_images: int,
    seed: int,
    root: str | None = None,
) -> CorruptedImages:
    """ImageNet-C as published, or any set laid out like it.

    Args:
      source: of the same classes; its class names are the names of the class folders.
      cells: what must be there.
      num_images: the first so many of a shuffled order.
      seed: of that order.
      root: the folder with gaussian_noise/1/n01440764/... and so on.

    Raises:
      UserError: cells without a folder.
      UserError: no root, other classes or too few images.
    """
    if root is None:
        raise UserError("which folder? say corruptions.folder.root = '/data/imagenet_c'")
    base = Path(root).expanduser()
    refuse_missing(
        repr(root),
        cells,
        lambda corruption, severity: (base / corruption / str(severity)).is_dir(),
        fix="corruptions.folder.root must have folders such as fog/3/n01440764",
    )

    def images(corruption: str, severity: int) -> Images:
        here = base / corruption / str(severity)
        files = images_by_class(here)
        names = tuple(sorted(files))
        split = folder_split(files, source.class_names)
        # Sources may have their classes in another order than the alphabet's.
        in_order = names if set(names) != set(source.class_names) else source.class_names
        check_split(repr(str(here)), split, in_order, source=source, num_images=num_images)
        return read_images(split, num_images=num_images, seed=seed)

    return CorruptedImages(f"folder {base.resolve()}", images)
