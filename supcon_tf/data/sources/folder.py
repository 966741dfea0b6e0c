"""A folder with a folder of images per class as a source."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from supcon_tf.data.image_files import images_by_class, split_of_files, without_unreadable
from supcon_tf.data.sources.base import Source, with_validation
from supcon_tf.data.splits import IndexedSplit, hold_out
from supcon_tf.errors import UserError

_VALIDATION_NAMES = ("val", "valid", "validation")


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

    Beside train and test, root/val (or valid, or validation) is the validation split; without
    test, it is what is held out. With neither, a share of every class is held out, the same for
    the same seed. JPEG, PNG, WebP, BMP and GIF files are read.

    Args:
      root: the folder; without it there is an error that says how to set it.
      test_share: of every class to hold out where there is no folder of held-out images.
      validation_share: of the training images to set aside, 0 for none; 0 with a validation folder.
      unreadable_limit: unreadable images are named and left out; a larger share of them than
        this is an error.
      check_images: decode every image once at the start, so that an unreadable one cannot end
        a run in its middle.
      seed: of the choice of the held-out and the validation images.

    Raises:
      UserError: no such folder.
      UserError: no root, no or one class, an empty class folder, other classes in test or
        validation than in train, two validation folders or one and a share, too few images of a
        class, or too many unreadable ones.
    """
    if root is None:
        raise UserError(
            "which folder of images? say --gin_param=\"sources.folder.root = '/data/photos'\""
        )
    base = Path(root).expanduser()
    if not base.is_dir():
        raise UserError(
            f"no folder {root!r}: point sources.folder.root at a folder with one folder of "
            "images per class"
        )
    folders = _folders_of_splits(base)
    if "validation" in folders and validation_share:
        raise UserError(
            f"{str(folders['validation'])!r} holds the validation images: "
            f"sources.folder.validation_share must be 0, got {validation_share}"
        )
    files = {split: images_by_class(path) for split, path in folders.items()}
    for split, path in folders.items():
        odd = sorted(files[split].keys() ^ files["train"].keys())
        if odd:
            raise UserError(
                f"train and {path.name} must have the same class folders in {root!r}; only one of "
                f"them has {odd[0]!r}"
            )
    class_names = tuple(sorted(files["train"]))
    if check_images:
        files = {
            split: without_unreadable(of_split, unreadable_limit)
            for split, of_split in files.items()
        }
    needed = 1 if "test" in files else 2
    for name in class_names:
        if len(files["train"][name]) < needed:
            raise UserError(
                f"the class folder {name!r} in {root!r} has {len(files['train'][name])} readable "
                f"images, {needed} are needed: add some, remove it, or give train/ and test/"
            )
    splits = {split: folder_split(of_split, class_names) for split, of_split in files.items()}
    if "test" not in splits:
        everything = splits["train"]
        kept, held_out = hold_out(everything.labels, test_share, seed=seed)
        splits = {"train": everything.take(kept), "test": everything.take(held_out)}
    return with_validation(Source(base.name, class_names, **splits), validation_share, seed)


def _folders_of_splits(base: Path) -> dict[str, Path]:
    """The folder of "train", and those of "test" and "validation" where there are any."""
    if not (base / "train").is_dir():
        return {"train": base}
    folders = {name: base / name for name in ("train", "test") if (base / name).is_dir()}
    named = [name for name in _VALIDATION_NAMES if (base / name).is_dir()]
    if len(named) > 1:
        raise UserError(f"{str(base)!r} must have one validation folder, got {named}: leave one")
    if named:
        folders["validation" if "test" in folders else "test"] = base / named[0]
    return folders


def folder_split(files: Mapping[str, list[str]], class_names: tuple[str, ...]) -> IndexedSplit:
    """The files of these classes, class by class; labels are places in `class_names`."""
    paths = tuple(path for name in class_names for path in files.get(name, ()))
    labels = [number for number, name in enumerate(class_names) for _ in files.get(name, ())]
    return split_of_files(paths, np.array(labels, np.int64))
