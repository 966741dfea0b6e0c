"""Labelled images in splits: what every source gives and every stage takes."""

import dataclasses

import numpy as np

from supcon_tf.data.splits import IndexedSplit, Split, StreamedSplit, hold_out
from supcon_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Source:
    """Labelled images in two or three splits.

    Args:
      name: for people.
      class_names: the name of each class number.
      train: to train on.
      test: held out; looked at only for results.
      validation: for choosing, a share of the training images or images of its own; None for none.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    validation: Split | None = None

    def __post_init__(self) -> None:
        for name in ("train", "test", "validation"):
            split = getattr(self, name)
            if split is not None:
                _check_labels(
                    f"{self.name!r}, {name}", split, self.num_classes, self.is_multi_label
                )

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several labels, which are then rows of 0 and 1 [C]."""
        return self.train.is_multi_label


def with_validation(source: Source, share: float, seed: int) -> Source:
    """Sets a share of every class of the training images aside, nothing for 0."""
    if share == 0:
        return source
    if isinstance(source.train, StreamedSplit):
        raise UserError(
            f"validation_share must be 0 for {source.name!r}, which is streamed, got {share}: "
            "say train_split = 'train[:95%]' and validation_split = 'train[95%:]' instead"
        )
    kept, chosen = hold_out(source.train.labels, share, seed=seed)
    return dataclasses.replace(
        source, train=source.train.take(kept), validation=source.train.take(chosen)
    )


def _check_labels(where: str, split: Split, num_classes: int, is_multi_label: bool) -> None:
    """All labels of an indexed split; of a streamed one the first, as some sets have none."""
    if split.is_multi_label != is_multi_label:
        raise UserError(
            f"labels of {where}, must be of the training images' kind, one per image or several"
        )
    if isinstance(split, IndexedSplit):
        labels = split.labels
    else:
        labels = np.array([label for _, label in split.in_order().take(1).as_numpy_iterator()])
    if is_multi_label:
        if labels.shape[1] != num_classes or not np.isin(labels, (0, 1)).all():
            raise UserError(
                f"labels of {where}, must be 0 or 1 for each of {num_classes} classes, got "
                f"{labels.min()} ... {labels.max()} of shape {labels.shape}"
            )
        if isinstance(split, IndexedSplit) and not labels.any():
            raise UserError(f"no image of {where}, has a label: choose another split")
        return
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise UserError(
            f"labels of {where}, must be in 0 ... {num_classes - 1}, got {wrong[0]}: TFDS gives -1 "
            "where a split has no labels, choose another split"
        )
