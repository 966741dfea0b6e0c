"""Batches of views for training, and of evaluation crops, from a split."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf

from supcon_tf.data.batch_maker import BatchMaker
from supcon_tf.data.decode import decode
from supcon_tf.data.mixing import Mixing
from supcon_tf.data.positives import (
    MAX_SHARE_ALONE,
    balanced_samples_per_class,
    share_without_positive,
)
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.splits import Split, StreamedSplit
from supcon_tf.errors import UserError, check_flag, check_integer

# (start, stop) -> the batches of steps start ... stop - 1.
Batches = Callable[[int, int], tf.data.Dataset]


def training_batches(
    split: Split,
    *,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    num_views: int,
    batch_size: int,
    num_classes: int,
    seed: int,
    samples_per_class: int | Literal["auto"] | None = None,
    samples_in_a_row: int | None = None,
    repeat_images: bool = False,
    mixing: Mixing | None = None,
    defer_to_device: bool = False,
    shard: tuple[int, int] = (0, 1),
    needs_positives: bool = False,
) -> Batches:
    """The endless sequence of training batches, as a function of a range of steps.

    A batch is images float32 [B, V, H, W, C] and labels int64 [B], or [B, num_classes] of 0 and 1
    where an image may have several. It depends only on the seed and the step: the images come from
    the split's shuffled order, each view's seed is folded from (seed, step, position in the batch,
    view). The order of an indexed split continues over epochs, so no image is dropped.

    Args:
      split: the images.
      preprocessing: crop and scale of a view.
      augmentation: applied between the two, such as `views.simclr`.
      num_views: V, views of each image.
      batch_size: B, over all replicas and hosts.
      num_classes: number of classes.
      seed: seed of order, views and mixing.
      samples_per_class: K for batches of B / K classes with K images each; None for the shuffled
        order. "auto" counts beforehand how many images of a random batch would have no other image
        of their class: if these are more than 5 % and `needs_positives`, the batches are
        class-balanced, with 4 images of a class or more.
      samples_in_a_row: images of a class that follow each other in such a batch, a divisor of K;
        then come those of the next class, and so on in turn. None for all K.
      repeat_images: use an image of a class with fewer than K images more than once in a batch, in
        other views, instead of an error.
      mixing: `mixing.mixup` or `mixing.cutmix`; labels are then rows float32 [B, num_classes]. All
        views of an image are mixed alike, with those of one other image. Each host mixes its own
        part of a batch.
      defer_to_device: leave augmentation and scale to the training step. Images are then
        {"crops": [B, V, H, W, C] in [0, 1], "seeds": int64 [B, V]}.
      shard: (h, H) for the h-th of H equal parts of every batch, one for each host.
      needs_positives: whether the loss takes positives from the labels of the batch. Random batches
        that leave more than 5 % of the images without one are then mentioned on the console.

    Returns:
      A function of (start, stop) that gives the batches of steps start ... stop - 1.

    Raises:
      UserError: a batch that is larger than the split or no multiple of the classes or hosts,
        class-balanced batches of a streamed split or without one label per image, or mixing on the
        device.
    """
    if needs_positives or samples_per_class == "auto":
        samples_per_class = _with_positives(
            split, batch_size, samples_per_class, needs_positives, is_first_host=shard[0] == 0
        )
    repeats = repeat_images and samples_per_class is not None
    _check_sizes(split, batch_size, num_views, shard, repeats=repeats)
    check_flag("pipeline.training_batches.defer_to_device", defer_to_device)
    check_flag("pipeline.training_batches.repeat_images", repeat_images)
    if samples_per_class is not None:
        _check_balanced(split, batch_size, samples_per_class, samples_in_a_row)
    elif repeat_images or samples_in_a_row is not None:
        raise UserError(
            "pipeline.training_batches.repeat_images and .samples_in_a_row need samples_per_class, "
            "got None"
        )
    if mixing is not None:
        _check_mixing(mixing, num_classes, defer_to_device)
    return BatchMaker(
        split=split,
        preprocessing=preprocessing,
        augmentation=augmentation,
        num_views=num_views,
        batch_size=batch_size,
        num_classes=num_classes,
        seed=seed,
        samples_per_class=samples_per_class,
        samples_in_a_row=samples_in_a_row,
        repeat_images=repeat_images,
        mixing=mixing,
        defer_to_device=defer_to_device,
        shard=shard,
    ).steps


def _with_positives(
    split: Split,
    batch_size: int,
    samples_per_class: int | Literal["auto"] | None,
    needs_positives: bool,
    *,
    is_first_host: bool,
) -> int | None:
    """Images of each class in a batch, None for random batches; prints the choice or a warning."""
    if samples_per_class is not None and samples_per_class != "auto":
        return samples_per_class
    is_auto = samples_per_class == "auto"
    if not needs_positives or isinstance(split, StreamedSplit):
        return None  # The labels of a stream are not known beforehand.
    if split.is_multi_label or split.labels.min(initial=0) < 0:
        return None
    check_integer("batch_size", batch_size, at_least=1)
    share = share_without_positive(split.labels, batch_size)
    if share <= MAX_SHARE_ALONE:
        return None
    chosen = balanced_samples_per_class(split.labels, batch_size) if is_auto else None
    random = f"random batches of {batch_size} leave {share:.0%} of the images without another one"
    if not is_first_host:
        return chosen
    if chosen is not None:
        print(
            f"batches: {chosen} images of each of {batch_size // chosen} classes, as {random} of "
            "their class"
        )
    else:
        advice = "a larger batch" if is_auto else "samples_per_class = 'auto'"
        print(
            f"warning: {random} of their class; try {advice} (pipeline.training_batches."
            "samples_per_class)"
        )
    return chosen


def evaluation_batches(
    examples: tf.data.Dataset, *, preprocessing: Preprocessing, batch_size: int
) -> tf.data.Dataset:
    """Evaluation crops in the order of `examples`: ([B, H, W, 3], labels), the last batch smaller.

    Args:
      examples: (image, label), as `split.in_order()`.
      preprocessing: crop and scale.
      batch_size: B.
    """
    view_of = _evaluation_view(preprocessing)
    crops = examples.map(
        lambda image, label: (view_of(image), label), num_parallel_calls=tf.data.AUTOTUNE
    )
    return crops.batch(batch_size).prefetch(tf.data.AUTOTUNE)


@functools.lru_cache(maxsize=4)  # Traced once for all splits.
def _evaluation_view(preprocessing: Preprocessing) -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(lambda image: preprocessing.evaluation_view(decode(image)), autograph=False)


def _check_sizes(
    split: Split, batch_size: int, num_views: int, shard: tuple[int, int], *, repeats: bool
) -> None:
    check_integer("batch_size", batch_size, at_least=1)
    check_integer("num_views", num_views, at_least=1)
    if batch_size > split.num_examples and not repeats:
        raise UserError(
            f"batch_size must be at most the {split.num_examples} training images, got "
            f'{batch_size}: lower it, as by --gin_param="pretrain.run.batch_size = '
            f'{max(1, split.num_examples // 2)}" (or linear.run, finetune.run)'
        )
    index, count = shard
    if not 0 <= index < count or batch_size % count:
        raise UserError(
            "shard must be (h, H) with h in 0 ... H - 1 and H a divisor of batch_size, got "
            f"{shard} and {batch_size}"
        )


def _check_balanced(
    split: Split, batch_size: int, samples_per_class: int, samples_in_a_row: int | None
) -> None:
    setting = "pipeline.training_batches.samples_per_class"
    check_integer(setting, samples_per_class, at_least=1)
    if isinstance(split, StreamedSplit):
        raise UserError(
            f"{setting} must be None for a streamed set, got {samples_per_class}: or set "
            'sources.tfds.cache = "disk"'
        )
    if split.is_multi_label or split.labels.min() < 0:
        raise UserError(
            f"{setting} must be None without one label per image, got {samples_per_class}"
        )
    if batch_size % samples_per_class:
        raise UserError(
            f"batch_size must be a multiple of samples_per_class, got {batch_size} and "
            f"{samples_per_class}"
        )
    if samples_in_a_row is not None:
        setting = "pipeline.training_batches.samples_in_a_row"
        check_integer(setting, samples_in_a_row, at_least=1)
        if samples_per_class % samples_in_a_row:
            raise UserError(
                f"{setting} must divide samples_per_class, got {samples_in_a_row} and "
                f"{samples_per_class}"
            )


def _check_mixing(mixing: Any, num_classes: int, defer_to_device: bool) -> None:
    setting = "pipeline.training_batches.mixing"
    if not callable(mixing):
        raise UserError(f"{setting} must be a function such as @mixing.mixup, got {mixing!r}")
    if defer_to_device or num_classes < 1:
        raise UserError(
            f"mixing is for stages with labels, without defer_to_device: set {setting} = None"
        )
