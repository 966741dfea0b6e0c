"""Less of a source, or a worse one: for studies of reduced data and of wrong labels."""

import dataclasses
from pathlib import Path

import numpy as np

from supcon_tf.data.sources.base import Source
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError


def subset(
    source: Source,
    *,
    first: int | None = None,
    per_class: int | None = None,
    fraction: float | None = None,
    list_file: str | None = None,
    seed: int = 0,
) -> Source:
    """The source with fewer training images; what is held out stays whole.

    Args:
      source: with training images that are read by number.
      first: the first so many training images, in the stored order, which in a folder is class by
        class: there, `per_class` is what is wanted.
      per_class: so many of each class, drawn from the seed; a smaller number is a part of a
        larger one's choice.
      fraction: this part of each class, within (0, 1], at least one image, drawn likewise.
      list_file: a text file in UTF-8 that names the images, one a line: by the end of its path,
        such as "n01440764_10026.JPEG" or "cats/1.jpg", or by its number in the stored order, from
        0.
      seed: of the choice by class.

    Raises:
      UserError: no such list.
      UserError: not one of the four, a number or a name that is not there, a list that is not in
        UTF-8, a streamed split, or a choice by class of images with several labels.

    Example:
      >>> from supcon_tf.data import sources
      >>> sources.subset(sources.digits(), per_class=5).train.num_examples
      50
    """
    train = _indexed(source, "a subset")
    ways = {"first": first, "per_class": per_class, "fraction": fraction, "list_file": list_file}
    given = {name: value for name, value in ways.items() if value is not None}
    if len(given) != 1:
        raise UserError(
            f"give first, per_class, fraction or list_file, one of them, got {given or 'none'}"
            + (": set the others to None" if given else "")
        )
    if first is not None:
        if not 1 <= first <= train.num_examples:
            raise UserError(
                f"first must be in 1 ... {train.num_examples}, the training images of "
                f"{source.name!r}, got {first}"
            )
        part = train.take(np.arange(first))
        if not source.is_multi_label and len(np.unique(part.labels)) < 2:
            raise UserError(
                f"the first {first} training images of {source.name!r} are of one class only: give "
                "per_class instead"
            )
        return dataclasses.replace(source, train=part)
    if list_file is not None:
        return dataclasses.replace(source, train=train.take(_listed(list_file, source, train)))
    _check_single_label(source, "a subset by class")
    if fraction is not None and not 0 < fraction <= 1:
        raise UserError(f"fraction must be within (0, 1], got {fraction}")
    chosen = []
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        count = per_class if fraction is None else max(1, round(fraction * len(members)))
        if count is None or not 1 <= count <= len(members):
            raise UserError(
                f"per_class must be in 1 ... {len(members)}, the training images of class "
                f"{source.class_names[label]!r}, got {per_class}"
            )
        order = np.random.default_rng([seed, int(label)]).permutation(len(members))
        chosen.append(members[order[:count]])
    return dataclasses.replace(source, train=train.take(np.sort(np.concatenate(chosen))))


def _listed(list_file: str, source: Source, train: IndexedSplit) -> np.ndarray:
    """The numbers of the images that the lines of a file name, in the stored order."""
    file = Path(list_file).expanduser()
    if not file.is_file():
        raise UserError(f"no list_file {list_file!r}: it holds an image's name a line")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"list_file {list_file!r} is not UTF-8 ({error}): save it as UTF-8"
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbers_of: dict[Path, list[int]] = {}
    depths = {len(Path(line).parts) for line in lines if not line.isdecimal()}
    for number, path in enumerate(train.paths if depths else ()):
        for depth in depths:
            end = Path(*Path(path).parts[-depth:])
            numbers_of.setdefault(end, []).append(number)
    chosen = set()
    for line in lines:
        if line.isdecimal() and int(line) < train.num_examples:
            found = [int(line)]
        else:
            found = numbers_of.get(Path(line), [])
        if len(found) != 1:
            raise UserError(
                f"{line!r} in {list_file!r} must name one of the {train.num_examples} training "
                f"images of {source.name!r}, got {len(found)}: give the end of its path"
                + ("" if train.paths else ", which these have not, or rather its number")
            )
        chosen.update(found)
    if not chosen:
        raise UserError(f"list_file must name an image a line, got {list_file!r} without any")
    return np.array(sorted(chosen), np.int64)


def label_noise(source: Source, *, probability: float, seed: int = 0) -> Source:
    """The source with wrong training labels; what is held out keeps its own.

    Args:
      source: with training images that are read by number.
      probability: with which a label is replaced by a class drawn uniformly, its own included.
      seed: of the choice.

    Raises:
      UserError: a probability outside of [0, 1], a streamed split, or several labels per image.

    Example:
      >>> from supcon_tf.data import sources
      >>> clean = sources.digits()
      >>> noisy = sources.label_noise(clean, probability=0.5)
      >>> round(float((clean.train.labels == noisy.train.labels).mean()), 2)  # 0.5 + 0.5 / 10
      0.55
    """
    if not 0 <= probability <= 1:
        raise UserError(f"probability must be in [0, 1], got {probability}")
    train = _indexed(source, "label noise")
    _check_single_label(source, "label noise")
    random = np.random.default_rng([seed, train.num_examples])
    drawn = random.integers(source.num_classes, size=train.num_examples)
    replaced = random.random(train.num_examples) < probability
    labels = np.where(replaced, drawn, train.labels).astype(np.int64)
    return dataclasses.replace(source, train=dataclasses.replace(train, labels=labels))


def _indexed(source: Source, what: str) -> IndexedSplit:
    if not isinstance(source.train, IndexedSplit):
        raise UserError(
            f"{what} needs images that are read by number, {source.name!r} is streamed: set "
            'sources.tfds.cache = "disk", or a slice such as train_split = "train[:10%]"'
        )
    return source.train


def _check_single_label(source: Source, what: str) -> None:
    if source.is_multi_label:
        raise UserError(
            f"{what} needs one label per image, those of {source.name!r} may have several: leave "
            "it out, or take a subset by first or list_file"
        )
