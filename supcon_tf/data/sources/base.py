"""Source: images in splits, which every stage trains on and tests with."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from supcon_tf.data.class_names import check_class_name
from supcon_tf.data.path_split import hold_out_by_path, names_below
from supcon_tf.data.splits import IndexedSplit, Split, StreamedSplit, hold_out
from supcon_tf.errors import UserError, check_number


@dataclasses.dataclass(frozen=True)
class Source:
    """Images in two or three splits, with labels or without.

    Args:
      name: shown in reports and messages.
      class_names: the name of each class number; () for images without labels, whose labels are
        all -1.
      train: training images.
      test: test images, used for results only.
      validation: images for choosing settings; None for none.
      root: the folder that paths of images are relative to; "" for none.
      is_split_by_path: whether the test or the validation split was chosen by the paths.

    Raises:
      UserError: a class name that is empty, not UTF-8, of several lines or there twice, or labels
        that do not fit the classes.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    validation: Split | None = None
    root: str = ""
    is_split_by_path: bool = False

    def __post_init__(self) -> None:
        for class_name in self.class_names:
            check_class_name(class_name)
        twice = [name for name, count in Counter(self.class_names).items() if count > 1]
        if twice:
            raise UserError(f"class names must differ, {twice[0]!r} is there twice: rename one")
        for name in ("train", "test", "validation"):
            split = getattr(self, name)
            if split is not None:
                _check_labels(f"{self.name!r}, {name}", split, self)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.class_names)

    @property
    def has_labels(self) -> bool:
        """Whether the images have labels. Without, they serve SimCLR and SwAV pretraining."""
        return bool(self.class_names)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several labels, given as rows of 0 and 1 [C]."""
        return self.train.is_multi_label

    @property
    def log_prior(self) -> tuple[float, ...]:
        """Log of each class's share of the training images, for losses of long-tailed classes.

        Raises:
          UserError: images that cannot be counted by class, or a class without training images.
        """
        wanted = "log_prior = 'source' needs one label for each training image"
        fix = "set log_prior to numbers or None"
        if not self.has_labels or self.is_multi_label:
            there = "may have several" if self.is_multi_label else "have none"
            raise UserError(f"{wanted}, those of {self.name!r} {there}: {fix}")
        if isinstance(self.train, StreamedSplit):
            raise UserError(
                f"{wanted}, known before training, but {self.name!r} is streamed: {fix}, or set "
                'sources.tfds.cache = "disk"'
            )
        counts = np.bincount(self.train.labels, minlength=self.num_classes)
        if not counts.all():
            raise UserError(
                f"log_prior = 'source' needs training images of each class, {self.name!r} has none "
                f"of {self.class_names[counts.argmin()]!r}: {fix}"
            )
        return tuple(np.log(counts / counts.sum()).tolist())


def check_source(setting: str, source: Any) -> None:
    """Raises a UserError unless the value of this setting is a Source."""
    if not isinstance(source, Source):
        raise UserError(
            f"{setting} must be a source such as @sources.folder() with brackets, got {source!r}"
        )


def split_off_test(
    split: IndexedSplit, share: float, seed: int, *, root: str = ""
) -> dict[str, IndexedSplit]:
    """Splits images into {"train": ..., "test": ...}, with this share of each class in the test.

    With a root the paths below it choose the test images, so that the share is exact on average and
    an image stays in its split when others are added.
    """
    if root:
        names = names_below(root, split.paths)
        kept, chosen = hold_out_by_path(names, split.labels, share, seed=seed)
    else:
        kept, chosen = hold_out(split.labels, share, seed=seed)
    return {"train": split.take(kept), "test": split.take(chosen)}


def with_validation(source: Source, share: float, seed: int) -> Source:
    """Moves a share of each class of the training images to a validation split; none for 0.

    Chosen as in `split_off_test`.
    """
    check_number("validation_share", share, at_least=0, below=1)
    if share == 0:
        return source
    if isinstance(source.train, StreamedSplit):
        raise UserError(
            f"validation_share must be 0 for {source.name!r}, which is streamed, got {share}: "
            "set train_split = 'train[:95%]' and validation_split = 'train[95%:]' instead"
        )
    # Another seed than that of the test split, whose images have the lowest hashes.
    salt = (seed + 1) * 2**32 if source.root else seed
    splits = split_off_test(source.train, share, salt, root=source.root)
    return dataclasses.replace(
        source,
        train=splits["train"],
        validation=splits["test"],
        is_split_by_path=bool(source.root),
    )


def _check_labels(where: str, split: Split, source: Source) -> None:
    """Checks all labels of an indexed split, and the first one of a streamed split."""
    if split.is_multi_label != source.is_multi_label:
        raise UserError(
            f"labels of {where}, must be like those of the training images: one per image, or rows"
        )
    if isinstance(split, IndexedSplit):
        labels = split.labels
    else:
        labels = np.array([label for _, label in split.in_order().take(1).as_numpy_iterator()])
    if labels.dtype.kind not in "iu":
        raise UserError(f"labels of {where}, must be integers, got {labels.dtype}")
    if not source.has_labels:
        if split.is_multi_label or (labels != -1).any():
            raise UserError(f"labels of {where}, must all be -1 without class names")
    elif split.is_multi_label:
        if labels.shape[1] != source.num_classes or not np.isin(labels, (0, 1)).all():
            raise UserError(
                f"labels of {where}, must be 0 or 1 for each of {source.num_classes} classes, got "
                f"{labels.min()} ... {labels.max()} of shape {labels.shape}"
            )
        if isinstance(split, IndexedSplit) and not labels.any():
            raise UserError(f"no image of {where}, has a label: choose another split")
    elif (wrong := labels[(labels < 0) | (labels >= source.num_classes)]).size:
        raise UserError(
            f"labels of {where}, must be in 0 ... {source.num_classes - 1}, got {wrong[0]}: TFDS "
            "gives -1 where a split has no labels; choose another split, or set "
            "sources.tfds.labelled = False to pretrain without labels"
        )
