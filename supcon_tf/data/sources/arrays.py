"""Arrays of images and labels in .npz or .npy files as a source."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from supcon_tf.data.array_files import (
    check_images_array,
    check_pixels,
    load_array,
    load_arrays,
    split_of_array,
)
from supcon_tf.data.sources.base import Source, split_off_test, with_validation
from supcon_tf.errors import UserError, check_flag, check_integer, check_number, check_text
from supcon_tf.files import expanded

# The names of images and labels in a .npz file; x_train and so on as in Keras' mnist.npz,
# train_images and so on as in MedMNIST.
KEYS = {
    "train": (
        *(("images", "labels"), ("x", "y")),
        *(("train_images", "train_labels"), ("x_train", "y_train")),
    ),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
    "validation": (("val_images", "val_labels"), ("x_val", "y_val")),
}

# Split -> images and labels, None without.
_Arrays = dict[str, tuple[np.ndarray, np.ndarray | None]]


def arrays(
    file: str | None = None,
    *,
    labels: str | None = None,
    test_file: str | None = None,
    test_labels: str | None = None,
    class_names: tuple[str, ...] | None = None,
    grey_as_rgb: bool = True,
    test_share: float = 0.2,
    validation_share: float = 0.0,
    check_images: bool = True,
    seed: int = 0,
) -> Source:
    """Images of one size in arrays, with any number of channels, such as spectrograms.

    Images are uint8, uint16 (scaled to [0, 1]) or floating-point in [0, 1], [n, H, W, C] or
    [n, H, W]. Labels are integers or names [n], or rows [n, C] of 0 and 1. Without labels the
    images serve SimCLR and SwAV pretraining.

    Args:
      file: a .npz file with `images` and `labels`, and optionally `test_images` and `test_labels`
        (or another pair of names in `KEYS`), read into memory; or a .npy file of images, which is
        memory-mapped. Required; None for an error that says how to set it.
      labels: the .npy file of the labels, where `file` is a .npy file.
      test_file, test_labels: .npy files of the test split.
      class_names: names of the class numbers; None for the labels themselves.
      grey_as_rgb: repeat a single channel three times, for models that take RGB.
      test_share: share of each class for the test split, where no test images are given.
      validation_share: share of the training images for the validation split; 0 for none.
      check_images: check once that all floating-point pixels are in [0, 1].
      seed: seed of the random test and validation splits.

    Raises:
      UserError: files that do not exist or hold other arrays, or labels that do not fit.
    """
    check_number("sources.arrays.test_share", test_share, above=0, below=1)
    check_number("sources.arrays.validation_share", validation_share, at_least=0, below=1)
    check_integer("sources.arrays.seed", seed, at_least=0)
    check_flag("sources.arrays.grey_as_rgb", grey_as_rgb)
    check_flag("sources.arrays.check_images", check_images)
    if class_names is not None:
        is_sequence = isinstance(class_names, Sequence) and not isinstance(class_names, str)
        if (
            not is_sequence
            or not class_names
            or not all(isinstance(name, str) for name in class_names)
        ):
            raise UserError(
                "sources.arrays.class_names must be names such as ('cat', 'dog'), got "
                f"{class_names!r}"
            )
    files = {"labels": labels, "test_file": test_file, "test_labels": test_labels}
    given = _given_arrays(file, {name: value for name, value in files.items() if value is not None})
    if "validation" in given and validation_share:
        raise UserError(
            f"{file!r} has images for validation: sources.arrays.validation_share must be 0, got "
            f"{validation_share}"
        )
    for split, (images, _) in given.items():
        check_images_array(f"{file!r}, {split}", images)
    # All floating-point images become float32.
    kinds = {"float" if x.dtype.kind == "f" else str(x.dtype) for x, _ in given.values()}
    if len(kinds) > 1:
        raise UserError(f"the images of all splits must be of one dtype, got {sorted(kinds)}")
    channels = {split: x.shape[3] if x.ndim == 4 else 1 for split, (x, _) in given.items()}
    if len(set(channels.values())) > 1:
        raise UserError(f"the images of all splits must have the same channels, got {channels}")
    numbers, names = _numbered({split: y for split, (_, y) in given.items()}, class_names, given)
    splits = {}
    for split, (images, _) in given.items():
        where = f"{file!r}, {split}"
        splits[split] = split_of_array(where, images, numbers[split], grey_as_rgb=grey_as_rgb)
        if check_images:
            check_pixels(where, images)
    if "test" not in splits:
        splits |= split_off_test(splits["train"], test_share, seed)
    source = Source(
        Path(str(file)).stem, names, splits["train"], splits["test"], splits.get("validation")
    )
    return with_validation(source, validation_share, seed)


def _given_arrays(file: str | None, others: Mapping[str, str]) -> _Arrays:
    if file is None:
        raise UserError(
            "which arrays of images? Set --gin_param=\"sources.arrays.file = '/data/images.npz'\""
        )
    check_text("sources.arrays.file", file, example="/data/images.npz")
    for name, value in others.items():
        check_text(f"sources.arrays.{name}", value, example="/data/labels.npy")
    path = expanded(file)
    if path.suffix.lower() == ".npz":
        if others:
            raise UserError(
                f"sources.arrays.{next(iter(others))} must be None, as {file!r} holds all arrays"
            )
        return _splits_in(file, load_arrays(path))
    if "test_labels" in others and "test_file" not in others:
        raise UserError("sources.arrays.test_labels needs sources.arrays.test_file")

    def load(name: str) -> np.ndarray | None:
        return load_array(expanded(others[name])) if name in others else None

    given: _Arrays = {"train": (load_array(path), load("labels"))}
    if (test_images := load("test_file")) is not None:
        given["test"] = (test_images, load("test_labels"))
    return given


def _splits_in(file: str, archive: Mapping[str, np.ndarray]) -> _Arrays:
    given: _Arrays = {}
    unused = set(archive)
    for split, pairs in KEYS.items():
        for images, labels in pairs:
            if images in archive and split not in given:
                given[split] = (archive[images], archive.get(labels))
                unused -= {images, labels}
    if "train" not in given:
        raise UserError(f"{file!r} must hold images and labels, got {sorted(archive)}")
    known = {name for pairs in KEYS.values() for pair in pairs for name in pair}
    if wrong := sorted(unused & known):
        raise UserError(
            f"{wrong[0]!r} of {file!r} does not belong to the other arrays {sorted(archive)}: "
            f"name them as one of {', '.join(map(str, KEYS['train']))}, or remove it"
        )
    if unused:
        tqdm.write(f"left out arrays of {file!r}: {', '.join(map(repr, sorted(unused)))}")
    return given


def _numbered(
    labels: Mapping[str, np.ndarray | None], class_names: tuple[str, ...] | None, given: _Arrays
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The class numbers of each split, int64 [n] or [n, C], and the names of the classes."""
    missing = [split for split, y in labels.items() if y is None]
    if missing and len(missing) < len(labels):
        raise UserError(f"the {missing[0]} images have no labels, but others have")
    found = {split: _checked(split, y) for split, y in labels.items() if y is not None}
    if not found:
        if class_names is not None:
            raise UserError(
                f"sources.arrays.class_names must be None for images without labels, got "
                f"{class_names!r}"
            )
        tqdm.write("no labels in the arrays: images without labels")
        return {split: np.full(len(x), -1, np.int64) for split, (x, _) in given.items()}, ()
    if len({(y.ndim, y.dtype.kind, y.shape[1:]) for y in found.values()}) > 1:
        raise UserError("the labels of all splits must be of one kind, such as integers [n]")
    first = found["train"]
    if first.ndim == 2 or class_names is not None:
        if first.dtype.kind != "i":
            raise UserError("sources.arrays.class_names must be None where labels are names")
        if class_names is None:
            class_names = tuple(str(number) for number in range(first.shape[1]))
        return found, tuple(class_names)
    values, numbers = np.unique(np.concatenate(list(found.values())), return_inverse=True)
    if len(values) < 2:
        raise UserError(f"at least two classes are needed, got {values.tolist()}")
    if untrained := sorted({*values.tolist()} - {*first.tolist()}):
        raise UserError(
            f"the class {untrained[0]!r} has no training images: add some, or give all names by "
            "sources.arrays.class_names"
        )
    ends = np.cumsum([len(y) for y in found.values()])
    parts = np.split(numbers.astype(np.int64), ends[:-1])
    return dict(zip(found, parts, strict=True)), tuple(str(value) for value in values)


def _checked(split: str, labels: np.ndarray) -> np.ndarray:
    """Labels as int64 or text: [n], or [n, C] of 0 and 1."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "surrogateescape")
    is_name = labels.dtype.kind == "U" and labels.ndim == 1
    is_whole = labels.dtype.kind in "iubf" and bool(
        # Larger numbers are not exact in a float, or not in int64.
        np.all((labels == np.floor(labels)) & (np.abs(labels.astype(float)) <= 2**53))
    )
    if not is_name and not (is_whole and labels.ndim in (1, 2)):
        raise UserError(
            f"{split} labels must be integers or names [n], or rows [n, C] of 0 and 1, got "
            f"{labels.dtype} {list(labels.shape)}"
        )
    if is_name:
        return labels
    if labels.size and labels.min() < 0:
        raise UserError(
            f"{split} labels must be >= 0, got {labels.min()}: number the classes from 0, and "
            "leave out images without labels"
        )
    return labels.astype(np.int64)
