"""Less of a source, or a worse one: for studies of reduced data and of wrong labels."""

import dataclasses

import numpy as np

from supcon_tf.data.source import Source
from supcon_tf.data.splits import IndexedSplit


def subset(
    source: Source,
    *,
    first: int | None = None,
    per_class: int | None = None,
    seed: int = 0,
) -> Source:
    """The source with fewer training images; what is held out stays whole.

    Args:
      source: with training images that are read by number.
      first: the first so many training images, in the stored order, which in a folder is class by
        class: there, `per_class` is what is wanted.
      per_class: so many of each class, drawn from the seed; a smaller number is a part of a
        larger one's choice.
      seed: of that choice.

    Raises:
      ValueError: both or none of the two, a number that is not there, or a streamed split.

    Example:
      >>> from supcon_tf.data import sources
      >>> sources.subset(sources.digits(), per_class=5).train.num_examples
      50
    """
    train = _indexed(source, "a subset")
    if first is not None and per_class is not None:
        raise ValueError(f"give first or per_class, got {first} and {per_class}")
    if first is not None:
        if not 1 <= first <= train.num_examples:
            raise ValueError(
                f"first must be in 1 ... {train.num_examples}, the training images of "
                f"{source.name!r}, got {first}"
            )
        part = train.take(np.arange(first))
        if len(np.unique(part.labels)) < 2:
            raise ValueError(
                f"the first {first} training images of {source.name!r} are of one class only: give "
                "per_class instead"
            )
        return dataclasses.replace(source, train=part)
    if per_class is None:
        raise ValueError("give first or per_class, the training images that are wanted")
    chosen = []
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        if not 1 <= per_class <= len(members):
            raise ValueError(
                f"per_class must be in 1 ... {len(members)}, the training images of class "
                f"{source.class_names[label]!r}, got {per_class}"
            )
        order = np.random.default_rng([seed, int(label)]).permutation(len(members))
        chosen.append(members[order[:per_class]])
    return dataclasses.replace(source, train=train.take(np.sort(np.concatenate(chosen))))


def label_noise(source: Source, *, probability: float, seed: int = 0) -> Source:
    """The source with wrong training labels; what is held out keeps its own.

    Args:
      source: with training images that are read by number.
      probability: with which a label is replaced by a class drawn uniformly, its own included.
      seed: of the choice.

    Raises:
      ValueError: a probability outside of [0, 1], or a streamed split.

    Example:
      >>> from supcon_tf.data import sources
      >>> clean = sources.digits()
      >>> noisy = sources.label_noise(clean, probability=0.5)
      >>> round(float((clean.train.labels == noisy.train.labels).mean()), 2)  # 0.5 + 0.5 / 10
      0.55
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1], got {probability}")
    train = _indexed(source, "label noise")
    random = np.random.default_rng([seed, train.num_examples])
    drawn = random.integers(source.num_classes, size=train.num_examples)
    replaced = random.random(train.num_examples) < probability
    labels = np.where(replaced, drawn, train.labels).astype(np.int64)
    return dataclasses.replace(source, train=dataclasses.replace(train, labels=labels))


def _indexed(source: Source, what: str) -> IndexedSplit:
    if not isinstance(source.train, IndexedSplit):
        raise ValueError(
            f"{what} needs images that are read by number, {source.name!r} is streamed: set "
            'sources.tfds.cache = "disk", or a slice such as train_split = "train[:10%]"'
        )
    return source.train
