"""Corrupted images in the published folders of ImageNet-C: corruption/severity/class/image."""

from supcon_tf.data.corruptions.base import (
    Cell,
    CorruptedImages,
    Images,
    check_cells,
    check_source_of,
    check_split,
    read_images,
)
from supcon_tf.data.image_files import images_by_class
from supcon_tf.data.sources.base import Source
from supcon_tf.data.sources.folder import folder_split


def folder(
    source: Source,
    *,
    cells: list[Cell],
    num_images: int,
    seed: int,
    root: str | None = None,
) -> CorruptedImages:
    """ImageNet-C as published, or images in the same layout.

    Args:
      source: source with the same classes; its class names are the names of the class folders.
      cells: corruptions and severities that are needed.
      num_images: number of images of each, the first of a shuffled order.
      seed: seed of that order.
      root: folder with gaussian_noise/1/n01440764/... and so on.

    Raises:
      UserError: no root, missing folders, other classes or too few images.
    """
    base = check_source_of("corruptions.folder.root", source, root, example="/data/imagenet_c")
    check_cells(
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
        # Not all sources have their classes in alphabetical order.
        in_order = names if set(names) != set(source.class_names) else source.class_names
        check_split(repr(str(here)), split, in_order, source=source, num_images=num_images)
        return read_images(split, num_images=num_images, seed=seed)

    return CorruptedImages(f"folder {base.resolve()}", images)
