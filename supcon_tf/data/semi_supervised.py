"""Batches of a lot without labels and a little with: one pass through the encoder for both."""

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.pipeline import Batches, training_batches
from supcon_tf.data.sources.base import Source
from supcon_tf.data.splits import IndexedSplit, Split
from supcon_tf.errors import UserError


def batches(
    split: Split,
    *,
    labelled: Source,
    batch_size: int,
    num_classes: int,
    seed: int,
    labelled_classes: int = 10,
    samples_per_class: int = 16,
    labelled_epochs: float | None = None,
    shard: tuple[int, int] = (0, 1),
    views: Callable[..., Batches] = training_batches,
    **options: Any,
) -> Batches:
    """Each batch of the images without their labels, and a class-balanced batch of labelled ones.

    The labels of the former are -1, which is how a loss tells the rows apart. The rows lie in equal
    groups, as many as both parts can be divided into, each with its share of both parts: so every
    replica that takes an equal part of the rows has its share of both, if their number divides that
    of the groups. After `labelled_epochs` only the unlabelled part is made.

    Args:
      split: all images; their labels are not used.
      labelled: the source whose training images are the labelled ones, as from `sources.subset`.
      batch_size: images without labels, over all replicas and hosts; an epoch counts these.
      num_classes, seed, shard, options: as in `training_batches`, of both parts.
      labelled_classes: classes in a labelled batch.
      samples_per_class: labelled images of each of them.
      labelled_epochs: passes over the split after which the labelled part ends; None for never.
      views: what makes each part, as `training_batches` or `multi_crop.batches`.

    Raises:
      UserError: as in `training_batches`, for either part; other classes than the labelled ones;
        labelled_epochs < 0; or more labelled classes or samples of them than there are, or none.

    Example:
      >>> from supcon_tf.data import semi_supervised, sources, views
      >>> everything = sources.digits()
      >>> steps = semi_supervised.batches(
      ...     everything.train, labelled=sources.subset(everything, per_class=5), batch_size=4,
      ...     num_classes=10, seed=0, labelled_classes=2, samples_per_class=2, num_views=2,
      ...     preprocessing=views.Preprocessing(32), augmentation=views.identity)
      >>> images, labels = next(iter(steps(0, 1)))
      >>> tuple(images.shape), labels.numpy().tolist().count(-1)
      ((8, 2, 32, 32, 3), 4)
    """
    if labelled.num_classes != num_classes:
        raise UserError(
            f"the labelled images must have the {num_classes} classes of all images, got "
            f"{labelled.num_classes}"
        )
    if labelled_epochs is not None and labelled_epochs < 0:
        raise UserError(f"labelled_epochs must be >= 0 or None, got {labelled_epochs}")
    if isinstance(labelled.train, IndexedSplit) and not labelled.is_multi_label:
        _, counts = np.unique(labelled.train.labels, return_counts=True)
        if not (1 <= labelled_classes <= len(counts) and 1 <= samples_per_class <= counts.min()):
            raise UserError(
                f"semi_supervised.batches.labelled_classes must be in 1 ... {len(counts)} and "
                f".samples_per_class in 1 ... {counts.min()}, the classes of the labelled images "
                f"and the fewest of one, got {labelled_classes} and {samples_per_class}"
            )
    num_labelled = labelled_classes * samples_per_class
    options |= {"num_classes": num_classes, "shard": shard}
    # One pipeline of both, so what it says of the disk is to hold for both.
    splits = [split, labelled.train]
    in_memory = all(isinstance(each, IndexedSplit) and each.in_memory for each in splits)
    split, labelled_split = (
        dataclasses.replace(each, in_memory=in_memory) if isinstance(each, IndexedSplit) else each
        for each in splits
    )
    unlabelled_steps = views(split, batch_size=batch_size, seed=seed, **options)
    labelled_steps = views(
        labelled_split,
        batch_size=num_labelled,
        samples_per_class=samples_per_class,
        # Other views than those of the unlabelled images at the same places; NumPy, which draws
        # the order, takes no negative seed.
        seed=int(fold_in(seed, 1)) & sys.maxsize,
        **options,
    )
    groups = math.gcd(batch_size, num_labelled) // shard[1]
    last = sys.maxsize
    if labelled_epochs is not None:
        last = int(labelled_epochs * split.num_examples / batch_size)

    def steps(start: int, stop: int) -> tf.data.Dataset:
        if start < last < stop:
            return steps(start, last).concatenate(steps(last, stop))
        some = unlabelled_steps(start, stop)
        if start >= last:
            return some.map(_without_labels)
        both = tf.data.Dataset.zip(some, labelled_steps(start, stop)).map(
            lambda some, others: tf.nest.map_structure(interleaved, _without_labels(*some), others)
        )
        # Its copies are made ahead, not while the training step waits.
        return both.prefetch(1)

    def interleaved(some: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
        # [B, ...] and [L, ...] -> [groups, (B + L) / groups, ...] -> [B + L, ...]
        parts = [tf.reshape(x, [groups, -1, *x.shape[1:]]) for x in (some, others)]
        return tf.reshape(tf.concat(parts, axis=1), [-1, *some.shape[1:]])

    return steps


def _without_labels(images: Any, labels: tf.Tensor) -> tuple[Any, tf.Tensor]:
    return images, -tf.ones_like(labels)
