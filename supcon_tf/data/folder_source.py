"""A folder with a folder of images per class as a source."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from supcon_tf.data.image_files import images_by_class, split_of_files, without_unreadable
from supcon_tf.data.source import Source, with_validation
from supcon_tf.data.splits import IndexedSplit, hold_out


def folder(
    root: str | None = None,
    *,
    test_share: float = 0.2,
    validation_share: float = 0.0,
    unreadable_limit: float = 0.05,
    check_images: bool = True,
    seed: int = 0,
) -> Source:
    """A folder of images: root/class/*.jpg, or root/train/class/*.jpg and root/test/class/*.jpg.

    Without a test folder, a share of every class is held out, the same for the same seed. JPEG,
    PNG, WebP, BMP and GIF files are read.

    Args:
      root: the folder; without it there is an error that says how to set it.
      test_share: of every class to hold out where there is no root/test (or root/val).
      validation_share: of the training images to set aside, 0 for none.
      unreadable_limit: unreadable images are named and left out; a larger share of them than
        this is an error.
      check_images: decode every image once at the start, so that an unreadable one cannot end
        a run in its middle.
      seed: of the choice of the held-out and the validation images.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no root, no or one class, an empty class folder, other classes in test than in
        train, too few images of a class, or too many unreadable ones.
    """
    if root is None:
        raise ValueError(
            "which folder of images? say --gin_param=\"sources.folder.root = '/data/photos'\""
        )
    base = Path(root).expanduser()
    if not base.is_dir():
        raise FileNotFoundError(
            f"no folder {root!r}: point sources.folder.root at a folder with one folder of "
            "images per class"
        )
    train_files = images_by_class(base / "train" if (base / "train").is_dir() else base)
    test_root = next((base / name for name in ("test", "val") if (base / name).is_dir()), None)
    if test_root is not None and (base / "train").is_dir():
        test_files = images_by_class(test_root)
        if test_files.keys() != train_files.keys():
            odd = sorted(test_files.keys() ^ train_files.keys())
            raise ValueError(
                f"train and {test_root.name} must have the same class folders in {root!r}; only "
                f"one of them has {odd[0]!r}"
            )
    else:
        test_files = {}
    class_names = tuple(sorted(train_files))
    if check_images:
        train_files = without_unreadable(train_files, unreadable_limit)
        test_files = without_unreadable(test_files, unreadable_limit)
    train = folder_split(train_files, class_names)
    test = folder_split(test_files, class_names)
    needed = 1 if test_files else 2
    for name in class_names:
        if len(train_files[name]) < needed:
            raise ValueError(
                f"the class folder {name!r} in {root!r} has {len(train_files[name])} readable "
                f"images, {needed} are needed: add some, remove it, or give train/ and test/"
            )
    if not test_files:
        kept, held_out = hold_out(train.labels, test_share, seed=seed)
        train, test = train.take(kept), train.take(held_out)
    return with_validation(Source(base.name, class_names, train, test), validation_share, seed)


def folder_split(files: Mapping[str, list[str]], class_names: tuple[str, ...]) -> IndexedSplit:
    """The files of these classes, class by class; labels are places in `class_names`."""
    paths = tuple(path for name in class_names for path in files.get(name, ()))
    labels = [number for number, name in enumerate(class_names) for _ in files.get(name, ())]
    return split_of_files(paths, np.array(labels, np.int64))
