"""A folder of images as a source."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from supcon_tf.data.image_files import ImageCheck, check_readable, split_of_files
from supcon_tf.data.sources.base import Source, split_off_test, with_validation
from supcon_tf.data.sources.layouts import Layout, find_layout
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError, check_flag, check_integer, check_number, check_text
from supcon_tf.files import expanded


def folder(
    root: str | None = None,
    *,
    labelled: bool | None = None,
    test_share: float = 0.2,
    validation_share: float = 0.0,
    unreadable_limit: float = 0.05,
    check_images: bool = True,
    seed: int = 0,
) -> Source:
    """A folder of images: root/class/1.jpg, or root/train/class/1.jpg and root/test/class/1.jpg.

    The validation split is root/val (or valid, validation). Without root/test, root/val is the test
    split instead; without both, the test split is about `test_share` of each class, chosen by the
    paths below root, so that adding images moves none. ImageNet and Tiny ImageNet are read as
    downloaded, and images without class folders as images without labels. See `data.image_formats`
    for the formats.

    Args:
      root: the folder. Required; None for an error that says how to set it.
      labelled: False to read all images, in subfolders too, without labels; None to see from the
        folder whether there are labels.
      test_share: share of each class for the test split, where there is no folder for it.
      validation_share: share of the training images for the validation split; 0 for none.
      unreadable_limit: largest share of unreadable images, which are reported and left out.
      check_images: decode every image once at the start, so that no unreadable one stops a run
        later.
      seed: seed of the random test and validation splits.

    Raises:
      UserError: a folder that does not exist or has no known layout, a class of too few images,
        two validation splits, or too many unreadable images.
    """
    check_number("sources.folder.test_share", test_share, above=0, below=1)
    check_number("sources.folder.validation_share", validation_share, at_least=0, below=1)
    check_number("sources.folder.unreadable_limit", unreadable_limit, at_least=0, at_most=1)
    check_flag("sources.folder.labelled", labelled, optional=True)
    check_flag("sources.folder.check_images", check_images)
    check_integer("sources.folder.seed", seed, at_least=0)
    base = _existing(root)
    layout = find_layout(base, labelled=labelled)
    if "validation" in layout.files and validation_share:
        raise UserError(
            f"{root!r} has images for validation: sources.folder.validation_share must be 0, got "
            f"{validation_share}"
        )
    checks = _check_and_remove_unreadable(layout, unreadable_limit) if check_images else {}
    _check_sizes(layout, root=str(root))
    splits = {
        name: folder_split(files, layout.class_names, checks.get(name))
        for name, files in layout.files.items()
    }
    by_path = "test" not in splits
    if by_path:
        splits |= split_off_test(splits["train"], test_share, seed, root=str(base))
    source = Source(
        base.name,
        layout.class_names,
        splits["train"],
        splits["test"],
        splits.get("validation"),
        root=str(base),
        is_split_by_path=by_path,
    )
    return with_validation(source, validation_share, seed)


def folder_split(
    files: Mapping[str, list[str]], class_names: tuple[str, ...], check: ImageCheck | None = None
) -> IndexedSplit:
    """The files class by class, labelled by position in `class_names`; -1 without class names."""
    names = class_names or tuple(files)
    paths = [path for name in names for path in files.get(name, ())]
    labels = [number for number, name in enumerate(names) for _ in files.get(name, ())]
    numbers = np.array(labels, np.int64) if class_names else np.full(len(paths), -1, np.int64)
    return split_of_files(paths, numbers, check)


def _existing(root: str | None) -> Path:
    if root is None:
        raise UserError(
            "which folder of images? Set --gin_param=\"sources.folder.root = '/data/photos'\""
        )
    check_text("sources.folder.root", root, example="/data/photos")
    base = expanded(root)
    if not base.is_dir():
        found = f"{root!r} is a file" if base.is_file() else f"no folder {root!r}"
        raise UserError(
            f"{found}: point sources.folder.root at a folder with one folder of images per class"
        )
    return base


def _check_and_remove_unreadable(layout: Layout, limit: float) -> dict[str, ImageCheck]:
    """Removes unreadable images from the layout; the check of each split."""
    checks = {}
    for split, files in layout.files.items():
        every = [path for paths in files.values() for path in paths]
        check = check_readable(every, limit, setting="sources.folder.unreadable_limit")
        layout.files[split] = {
            name: [path for path in paths if path not in check.unreadable]
            for name, paths in files.items()
        }
        checks[split] = check
    return checks


def _check_sizes(layout: Layout, *, root: str) -> None:
    needed = 1 if "test" in layout.files else 2
    for name, paths in layout.files["train"].items():
        if len(paths) < needed:
            where = f"the class folder {name!r} in {root!r}" if name else repr(root)
            raise UserError(
                f"{where} has {len(paths)} readable images, {needed} are needed: add some, remove "
                "it, or give train/ and test/"
            )
