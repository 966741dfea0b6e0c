"""Batches of many unlabelled and a few labelled images, for one pass through the encoder."""

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from supcon_tf.data import multi_crop
from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.pipeline import Batches, training_batches
from supcon_tf.data.sources.base import Source, check_source
from supcon_tf.data.splits import IndexedSplit, Split
from supcon_tf.errors import UserError, check_flag, check_integer, check_number


def batches(
    split: Split,
    *,
    labelled: Source,
    batch_size: int,
    num_classes: int,
    num_views: int,
    seed: int,
    labelled_classes: int = 10,
    samples_per_class: int = 16,
    views_per_labelled_image: int | None = None,
    repeat_images: bool = False,
    labelled_epochs: float | None = None,
    shard: tuple[int, int] = (0, 1),
    views: Callable[..., Batches] = training_batches,
    needs_positives: bool = False,
    **options: Any,
) -> Batches:
    """Batches of unlabelled images, each joined by a class-balanced batch of labelled images.

    The unlabelled images get the label -1, so that a loss can distinguish them. The rows are in
    gcd(batch_size, labelled rows) equal groups, each with its share of both parts, so that each
    replica's part of a batch has its share of both, and the same classes if its labelled rows are a
    multiple of `labelled_classes`. After `labelled_epochs` only the unlabelled part is made.

    With fewer `views_per_labelled_image` than `num_views`, a labelled row has views of several
    images of one class, and a batch fewer labelled rows than labelled images. To a loss of class
    labels, such as SuNCEt, they are views like any others.

    Args:
      split: all images; their labels are not used.
      labelled: the source whose training images are the labelled ones, as from `sources.subset`.
      batch_size: unlabelled images, over all replicas and hosts. An epoch counts these.
      num_classes, num_views, seed, shard, options: as in `training_batches`, for both parts.
        num_classes is 0 where the source of `split` has no labels.
      labelled_classes: classes in a labelled batch.
      samples_per_class: labelled images of each of them.
      views_per_labelled_image: a divisor of num_views; None for num_views. Not for multi-crop.
      repeat_images: as in `training_batches`, for the labelled part.
      labelled_epochs: epochs after which the labelled part ends; None for never.
      views: makes each part, such as `training_batches` or `multi_crop.batches`.
      needs_positives: not used, as the labelled part is class-balanced.

    Raises:
      UserError: as in `training_batches`, for either part; classes other than those of all images;
        labelled_epochs < 0; more labelled classes or images of them than there are; or numbers of
        views, images and hosts that do not divide each other.

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
    del needs_positives
    _check_options(labelled, num_classes, labelled_epochs)
    _check_balance(labelled, labelled_classes, samples_per_class, repeat_images)
    num_labelled = labelled_classes * samples_per_class
    images_per_row = 1
    if views_per_labelled_image is not None:
        _check_views(views_per_labelled_image, num_views, samples_per_class, views)
        if options.get("mixing") is not None:
            raise UserError(
                "semi_supervised.batches.views_per_labelled_image must be None with "
                f"pipeline.training_batches.mixing, got {views_per_labelled_image}"
            )
        images_per_row = num_views // views_per_labelled_image
    options |= {"num_classes": labelled.num_classes, "shard": shard}
    split, labelled_split = _with_threads_for_both(split, labelled.train)
    unlabelled_steps = views(
        split, batch_size=batch_size, num_views=num_views, seed=seed, **options
    )
    labelled_steps = views(
        labelled_split,
        batch_size=num_labelled,
        num_views=num_views // images_per_row,
        samples_per_class=samples_per_class,
        samples_in_a_row=images_per_row,
        repeat_images=repeat_images,
        # Folded, so that the two parts have different views at the same positions. NumPy, which
        # draws the order, takes no negative seed.
        seed=int(fold_in(seed, 1)) & sys.maxsize,
        **options,
    )
    labelled_rows = num_labelled // images_per_row
    if labelled_rows % shard[1]:
        raise UserError(
            f"the {labelled_rows} labelled rows of a batch must be a multiple of the {shard[1]} "
            "hosts: change semi_supervised.batches.samples_per_class"
        )
    groups = math.gcd(batch_size, labelled_rows) // shard[1]
    last = sys.maxsize
    if labelled_epochs is not None:
        last = int(labelled_epochs * split.num_examples / batch_size)

    def steps(start: int, stop: int) -> tf.data.Dataset:
        if start < last < stop:
            return steps(start, last).concatenate(steps(last, stop))
        unlabelled = unlabelled_steps(start, stop)
        if start >= last:
            return unlabelled.map(_without_labels)
        joined = tf.data.Dataset.zip(unlabelled, labelled_steps(start, stop)).map(
            lambda batch, others: tf.nest.map_structure(
                join, _without_labels(*batch), _in_rows(*others, images_per_row=images_per_row)
            )
        )
        # The copies are made ahead, not while the training step waits.
        return joined.prefetch(1)

    def join(rows: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
        # [B, ...] and [L, ...] -> [groups, (B + L) / groups, ...] -> [B + L, ...]
        parts = [tf.reshape(x, [groups, -1, *x.shape[1:]]) for x in (rows, others)]
        return tf.reshape(tf.concat(parts, axis=1), [-1, *rows.shape[1:]])

    return steps


def _check_options(labelled: Source, num_classes: int, labelled_epochs: float | None) -> None:
    check_source("semi_supervised.batches.labelled", labelled)
    if not labelled.has_labels:
        raise UserError(
            f"semi_supervised.batches.labelled must have labels, but {labelled.name!r} has none"
        )
    if num_classes and labelled.num_classes != num_classes:
        raise UserError(
            f"the labelled images must have the {num_classes} classes of all images, got "
            f"{labelled.num_classes}"
        )
    if labelled_epochs is not None:
        check_number("semi_supervised.batches.labelled_epochs", labelled_epochs, at_least=0)


def _check_balance(
    labelled: Source, labelled_classes: int, samples_per_class: int, repeat_images: bool
) -> None:
    numbers = {"labelled_classes": labelled_classes, "samples_per_class": samples_per_class}
    for name, value in numbers.items():
        check_integer(f"semi_supervised.batches.{name}", value, at_least=1)
    check_flag("semi_supervised.batches.repeat_images", repeat_images)
    if isinstance(labelled.train, IndexedSplit) and not labelled.is_multi_label:
        _, counts = np.unique(labelled.train.labels, return_counts=True)
        too_many = samples_per_class > counts.min() and not repeat_images
        if labelled_classes > len(counts) or too_many:
            raise UserError(
                f"semi_supervised.batches.labelled_classes must be in 1 ... {len(counts)} and "
                f".samples_per_class in 1 ... {counts.min()} (or .repeat_images = True), the "
                "classes of the labelled images and the fewest of one, got "
                f"{labelled_classes} and {samples_per_class}"
            )


def _check_views(
    views_per_image: int, num_views: int, samples_per_class: int, views: Callable[..., Batches]
) -> None:
    setting = "semi_supervised.batches.views_per_labelled_image"
    check_integer(setting, views_per_image, at_least=1)
    # gin wraps the function.
    if inspect.unwrap(views) is inspect.unwrap(multi_crop.batches):
        raise UserError(f"{setting} must be None for multi-crop, got {views_per_image}")
    if num_views % views_per_image or samples_per_class % (num_views // views_per_image):
        raise UserError(
            f"{setting} must divide the {num_views} views, and .samples_per_class must be a "
            f"multiple of their quotient, got {views_per_image} and {samples_per_class}"
        )


def _with_threads_for_both(*splits: Split) -> list[Split]:
    """The splits, in memory only if both are: one pipeline reads both, with one thread pool."""
    in_memory = all(isinstance(split, IndexedSplit) and split.in_memory for split in splits)
    return [
        dataclasses.replace(split, in_memory=in_memory)
        if isinstance(split, IndexedSplit)
        else split
        for split in splits
    ]


def _in_rows(images: Any, labels: tf.Tensor, *, images_per_row: int) -> tuple[Any, tf.Tensor]:
    """Joins k images of a class that follow each other: [L, v, ...] -> [L / k, k v, ...]."""
    if images_per_row == 1:
        return images, labels

    def joined(values: tf.Tensor) -> tf.Tensor:
        shape = [-1, images_per_row * values.shape[1], *values.shape[2:]]
        return tf.reshape(values, shape)

    return tf.nest.map_structure(joined, images), labels[::images_per_row]


def _without_labels(images: Any, labels: tf.Tensor) -> tuple[Any, tf.Tensor]:
    return images, -tf.ones_like(labels)
