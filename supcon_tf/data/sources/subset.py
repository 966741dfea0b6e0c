"""A part of a source's training images, or wrong labels: for studies of small and noisy data."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from supcon_tf.data.sources.base import Source, check_source
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError, check_integer, check_number, check_text
from supcon_tf.files import expanded


def subset(
    source: Source,
    *,
    first: int | None = None,
    per_class: int | None = None,
    fraction: float | None = None,
    list_file: str | None = None,
    imbalance: float | None = None,
    seed: int = 0,
) -> Source:
    """Keeps a part of the training images, chosen in one of five ways; other splits stay whole.

    Args:
      source: with training images that are read by number.
      first: number of images to keep from the start of the stored order. A folder is stored class
        by class: use `per_class` there.
      per_class: number of images to keep of each class, at random. A smaller number keeps a part
        of what a larger one keeps.
      fraction: share of each class to keep, in (0, 1], likewise; at least one image.
      list_file: a text file in UTF-8 with one image per line: its path, the end of its path or of
        its name in a TFDS set, such as "n01440764_10026.JPEG" or "cats/1.jpg", or its number. That
        is the one in the name, 17 for "train_00017", where a TFDS set has such names, as cifar10;
        otherwise the place in the stored order, from 0.
      imbalance: about the size of the largest class over that of the smallest, >= 1, for a
        long-tailed set: n imbalance^(-c / (C - 1)) random images of class c, rounded down, where n
        is the size of the smallest class (CIFAR-LT, Cao et al. 2019, arXiv 1906.07413).
      seed: seed of the random choice.

    Raises:
      UserError: none or several of the five, a number out of range, a file that does not exist or
        names other images, an image twice or images of one class only; a streamed split, or a
        choice by class without one label per image.

    Example:
      >>> from supcon_tf.data import sources
      >>> sources.subset(sources.digits(), per_class=5).train.num_examples
      50
    """
    check_source("sources.subset.source", source)
    check_integer("sources.subset.seed", seed, at_least=0)
    train = _indexed(source, "a subset")
    ways = {
        "first": first,
        "per_class": per_class,
        "fraction": fraction,
        "list_file": list_file,
        "imbalance": imbalance,
    }
    given = {name: value for name, value in ways.items() if value is not None}
    if len(given) != 1:
        raise UserError(
            "give one of first, per_class, fraction, list_file and imbalance, got "
            f"{given or 'none'}" + (": set the others to None" if given else "")
        )
    if first is not None:
        numbers = _first_images(source, train, first)
    elif list_file is not None:
        numbers = _listed_images(source, train, list_file)
    else:
        counts = _class_counts(source, train, per_class, fraction, imbalance)
        numbers = _images_of_each_class(train, counts, seed)
    return dataclasses.replace(source, train=train.take(numbers))


def label_noise(source: Source, *, probability: float, seed: int = 0) -> Source:
    """Replaces training labels at random by a class drawn uniformly, which may be the right one.

    Args:
      source: with training images that are read by number and have one label each.
      probability: probability of replacing each label.
      seed: seed of the choice.

    Raises:
      UserError: a probability outside [0, 1], a streamed split, or images without one label each.

    Example:
      >>> from supcon_tf.data import sources
      >>> clean = sources.digits()
      >>> noisy = sources.label_noise(clean, probability=0.5)
      >>> round(float((clean.train.labels == noisy.train.labels).mean()), 2)  # 0.5 + 0.5 / 10
      0.55
    """
    check_source("sources.label_noise.source", source)
    check_number("sources.label_noise.probability", probability, at_least=0, at_most=1)
    check_integer("sources.label_noise.seed", seed, at_least=0)
    train = _indexed(source, "label noise")
    _check_single_label(source, "label noise")
    rng = np.random.default_rng([seed, train.num_examples])
    drawn = rng.integers(source.num_classes, size=train.num_examples)
    replaced = rng.random(train.num_examples) < probability
    labels = np.where(replaced, drawn, train.labels).astype(np.int64)
    return dataclasses.replace(source, train=dataclasses.replace(train, labels=labels))


def _first_images(source: Source, train: IndexedSplit, first: int) -> np.ndarray:
    check_integer("sources.subset.first", first, at_least=1)
    check_number("sources.subset.first", first, at_most=train.num_examples)
    what = f"the first {first} training images of {source.name!r}"
    _check_classes(source, train.labels[:first], what, "set sources.subset.per_class instead")
    return np.arange(first)


def _check_classes(source: Source, labels: np.ndarray, what: str, advice: str) -> None:
    one_label = source.has_labels and not source.is_multi_label
    if one_label and len(np.unique(labels)) < 2:
        raise UserError(f"{what} are of one class only: {advice}")


def _class_counts(
    source: Source,
    train: IndexedSplit,
    per_class: int | None,
    fraction: float | None,
    imbalance: float | None,
) -> dict[int, int]:
    """Label -> number of images to keep."""
    if fraction is None or source.has_labels:
        _check_single_label(source, "a subset by class")
    labels, sizes = np.unique(train.labels, return_counts=True)
    if imbalance is not None:
        check_number("sources.subset.imbalance", imbalance, at_least=1)
        exponents = labels / max(source.num_classes - 1, 1)
        # Rounding must not make 1 of 0.99999.
        kept = np.floor(sizes.min() * float(imbalance) ** -exponents + 1e-9).astype(int)
        if kept.min() < 1:
            raise UserError(
                f"sources.subset.imbalance must be at most {sizes.min()}, the images of the "
                f"smallest class of {source.name!r}, got {imbalance}"
            )
    elif fraction is not None:
        check_number("sources.subset.fraction", fraction, above=0, at_most=1)
        kept = np.maximum(1, np.round(fraction * sizes)).astype(int)
    else:
        for label, size in zip(labels, sizes, strict=True):
            where = f"sources.subset.per_class for class {source.class_names[label]!r}"
            check_number(where, check_integer(where, per_class, at_least=1), at_most=int(size))
        kept = np.full(len(labels), per_class)
    return dict(zip(labels.tolist(), kept.tolist(), strict=True))


def _images_of_each_class(train: IndexedSplit, counts: dict[int, int], seed: int) -> np.ndarray:
    chosen = []
    for label, count in counts.items():
        members = np.flatnonzero(train.labels == label)
        # Images without labels have the label -1, which is not a seed.
        order = np.random.default_rng([seed, max(label, 0)]).permutation(len(members))
        chosen.append(members[order[:count]])
    return np.sort(np.concatenate(chosen))


def _listed_images(source: Source, train: IndexedSplit, list_file: str) -> np.ndarray:
    """The places in the stored order of the images that a file lists, sorted."""
    # A whole path is one below the source's folder.
    root = f"{Path(source.root).absolute().as_posix()}/" if source.root else ""
    lines = [line.removeprefix(root) for line in _lines(list_file)]
    names = train.paths or (train.names() if train.names is not None else ())
    places = _places_by_number(train, names)
    places_by_end: dict[Path, list[int]] = {}
    depths = {len(Path(line).parts) for line in lines if not line.isdecimal()}
    for place, name in enumerate(names if depths else ()):
        parts = Path(name).parts
        for depth in depths:
            if depth <= len(parts):
                places_by_end.setdefault(Path(*parts[-depth:]), []).append(place)
    found = [
        [places[int(line)]]
        if line.isdecimal() and int(line) in places
        else places_by_end.get(Path(line), [])
        for line in lines
    ]
    wrong = [(line, places) for line, places in zip(lines, found, strict=True) if len(places) != 1]
    if wrong:
        line, images = wrong[0]
        advice = (
            f"an image is named as {names[0]!r}" if names else "an image is named by its number"
        )
        raise UserError(
            f"{len(wrong)} of {len(lines)} lines in {list_file!r} name no training image of "
            f"{source.name!r}, or several; first {line!r}, which names {len(images)} of "
            f"{train.num_examples}: {advice}, and images of other splits cannot be listed"
        )
    line_of: dict[int, str] = {}
    for line, (place,) in zip(lines, found, strict=True):
        if place in line_of:
            raise UserError(
                f"{line_of[place]!r} and {line!r} in {list_file!r} name the same image: remove "
                "one of these lines"
            )
        line_of[place] = line
    chosen = np.array(sorted(line_of), np.int64)
    _check_classes(source, train.labels[chosen], f"the images in {list_file!r}", "list others too")
    return chosen


def _places_by_number(train: IndexedSplit, names: Sequence[str]) -> dict[int, int]:
    """Number of an image in a list -> its place in the stored order."""
    if not train.paths:
        # TFDS shuffles a set before storing it; its names have the original numbers.
        numbers = [int(match[1]) for name in names if (match := re.search(r"_(\d+)$", name))]
        if names and len(numbers) == train.num_examples:
            # A number that two images have names neither.
            once = {number for number, count in Counter(numbers).items() if count == 1}
            return {number: place for place, number in enumerate(numbers) if number in once}
    return {place: place for place in range(train.num_examples)}


def _lines(list_file: str) -> list[str]:
    check_text("sources.subset.list_file", list_file, example="labelled.txt")
    file = expanded(list_file)
    if not file.is_file():
        raise UserError(f"no list_file {list_file!r}: it must be a text file of one image per line")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"list_file {list_file!r} is not UTF-8 ({error}): save it as UTF-8"
        ) from error
    lines = [line.strip().replace("\\", "/") for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"list_file {list_file!r} is empty: it must name one image per line")
    return lines


def _indexed(source: Source, what: str) -> IndexedSplit:
    if not isinstance(source.train, IndexedSplit):
        raise UserError(
            f"{what} needs images that are read by number, but {source.name!r} is streamed: set "
            'sources.tfds.cache = "disk", or a slice such as train_split = "train[:10%]"'
        )
    return source.train


def _check_single_label(source: Source, what: str) -> None:
    if not source.has_labels:
        raise UserError(f"{what} needs labels, but {source.name!r} has none: leave it out")
    if source.is_multi_label:
        raise UserError(
            f"{what} needs one label per image, but those of {source.name!r} may have several: "
            "leave it out, or take a subset by first or list_file"
        )
