"""Batches of views for training, and of evaluation crops, out of a split."""

import functools
import math
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.decode import decode
from supcon_tf.data.mixing import Mixing
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.splits import IndexedSplit, Split, StreamedSplit
from supcon_tf.errors import UserError

# (start, stop) -> the batches of steps start ... stop - 1.
Batches = Callable[[int, int], tf.data.Dataset]

_CORES = os.cpu_count() or 1
# So many elements in the making keep all cores busy.
_CALLS = 2 * _CORES


def training_batches(
    split: Split,
    *,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    num_views: int,
    batch_size: int,
    num_classes: int,
    seed: int,
    samples_per_class: int | None = None,
    mixing: Mixing | None = None,
    defer_to_device: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> Batches:
    """The endless sequence of batches, from which (start, stop) takes steps start ... stop - 1.

    A batch, images float32 [B, V, H, W, 3] and labels int64 [B] (or [B, C] of 0 and 1, where an
    image may have several), is a function of (seed, step):
    the samples by the split's shuffled order, the views by a seed folded from (seed, step, place
    in the batch, view). The order of images that are read by number runs on over epoch boundaries,
    so none is dropped. Images of one size that are held decoded become views a batch at a time,
    others one by one; of decoded images both give the same views but for rounding.

    Args:
      split: the images.
      preprocessing: crop and scale of a view.
      augmentation: what distorts it between the two, as `views.simclr`.
      num_views: V, views of each sample.
      batch_size: B, over all replicas and hosts.
      num_classes: C.
      seed: of order, views and mixing.
      samples_per_class: K for batches of B / K classes with K samples each; None for the images
        as they come.
      mixing: `mixing.mixup` or `mixing.cutmix`, for batches of one view; labels are then rows
        float32 [B, C]. With several hosts, each mixes its own part.
      defer_to_device: leave augmentation and scale to the training step: instead of views there
        are crops in [0, 1] and the seeds of their views, {"crops": [B, V, H, W, 3], "seeds":
        int64 [B, V]}.
      shard: (h, H) for the h-th of H equal parts of every batch, one for each host.

    Raises:
      UserError: a batch larger than the split or not a multiple of the classes or hosts,
        batches by class of a streamed split or of images with several labels, or mixing with
        several views or on the device.
    """
    if mixing is not None and (num_views != 1 or defer_to_device):
        raise UserError(
            "mixing is for stages that train on one view, without defer_to_device: set "
            "pipeline.training_batches.mixing = None"
        )
    if batch_size > split.num_examples:
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
    if samples_per_class is not None and isinstance(split, StreamedSplit):
        raise UserError(
            "batches by class need images that are read by number, which a streamed split has not: "
            'set sources.tfds.cache = "disk", or samples_per_class = None'
        )
    if samples_per_class is not None and split.is_multi_label:
        raise UserError(
            "batches by class need one label per image, here an image may have several: set "
            "samples_per_class = None"
        )
    if samples_per_class is not None and (samples_per_class < 1 or batch_size % samples_per_class):
        raise UserError(
            f"batch_size must be a multiple of samples_per_class, got {batch_size} and "
            f"{samples_per_class}"
        )
    share = batch_size // count
    places = tf.range(index * share, (index + 1) * share, dtype=tf.int64)

    def seeds_of(step: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        # places [...] -> [..., V]
        numbers = places[..., None] * num_views + tf.range(num_views, dtype=tf.int64)
        return fold_in(fold_in(seed, step), numbers)

    # Traced once, however many stretches of steps are taken.
    @tf.function(autograph=False)
    def views_of(image: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        crops = preprocessing.training_crops(image, seed=seeds)
        if defer_to_device:
            return {"crops": crops, "seeds": seeds}
        return preprocessing.augment_and_scale(crops, augmentation, seed=seeds)

    @tf.function(autograph=False)
    def mixed(
        mixing: Mixing, step: tf.Tensor, views: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # The seed of the view after the batch's last.
        mix_seed = fold_in(fold_in(seed, step), batch_size * num_views + index)
        rows = tf.one_hot(labels, num_classes) if labels.shape.rank == 1 else labels
        images, targets = mixing(views[:, 0], tf.cast(rows, tf.float32), seed=mix_seed)
        return images[:, None], targets

    # AutoGraph would turn the one line of a wrong option into a page of where it was traced.
    @tf.autograph.experimental.do_not_convert
    def steps(start: int, stop: int) -> tf.data.Dataset:
        made = unmixed(start, stop)
        if mixing is not None:
            numbered = tf.data.Dataset.zip(tf.data.Dataset.range(start, stop), made)
            # Two whole batches at a time, for the sake of memory.
            made = numbered.map(
                lambda step, batch: mixed(mixing, step, *batch), num_parallel_calls=2
            )
        in_memory = isinstance(split, IndexedSplit) and split.in_memory
        return _scheduled(made.prefetch(2), in_memory=in_memory)

    def unmixed(start: int, stop: int) -> tf.data.Dataset:
        if isinstance(split, StreamedSplit):
            images = split.batched(seed=seed, start=start, stop=stop, batch_size=batch_size)
            numbered = images.enumerate(start * batch_size)
            if count > 1:
                numbered = numbered.filter(
                    lambda position, _: (position % batch_size) // share == index
                )
            samples = numbered.map(
                lambda position, example: (
                    views_of(example[0], seeds_of(position // batch_size, position % batch_size)),
                    example[1],
                ),
                num_parallel_calls=_CALLS,
            )
            return samples.batch(share, drop_remainder=True)
        numbers = _numbers(split, seed, start, stop, batch_size, samples_per_class)
        numbers = numbers[:, index * share : (index + 1) * share]

        def views_and_labels(numbers: tf.Tensor, seeds: tf.Tensor) -> tuple:
            image, label = split.example(numbers)
            return views_of(image, seeds), label

        if split.reads_batches:
            part = part_of(share, num_views * math.prod(preprocessing.image_shape))
            parts = tf.data.Dataset.from_tensor_slices(numbers.reshape(-1, part)).enumerate()
            made = parts.map(
                lambda number, numbers: views_and_labels(
                    numbers,
                    seeds_of(start + number * part // share, places[:part] + number * part % share),
                ),
                num_parallel_calls=_CALLS,
            )
            if part == share:
                return made
            # Not Dataset.rebatch, which a strategy of one replica undoes.
            return made.batch(share // part, drop_remainder=True).map(
                lambda *batch: tf.nest.map_structure(_parts_joined, batch)
            )
        whole = tf.data.Dataset.from_tensor_slices(numbers).enumerate(start)
        samples = whole.flat_map(
            lambda step, numbers: tf.data.Dataset.from_tensor_slices(
                (numbers, seeds_of(step, places))
            )
        )
        made = samples.map(views_and_labels, num_parallel_calls=_CALLS)
        return made.batch(share, drop_remainder=True)

    return steps


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


def part_of(share: int, numbers: int) -> int:
    """Samples, of so many numbers each, that are made at once: a divisor of a batch's share."""
    # About 2 MB, which stays in a core's cache from one operation to the next. A share without a
    # divisor near that, such as a prime, is made at once.
    limit = max(1, min(share, 2**19 // numbers))
    part = max(divisor for divisor in range(1, limit + 1) if share % divisor == 0)
    return part if 4 * part >= limit else share


def _parts_joined(values: tf.Tensor) -> tf.Tensor:
    # [parts, n, ...] -> [parts * n, ...]
    shape = tf.shape(values)
    return tf.reshape(values, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))


def _scheduled(dataset: tf.data.Dataset, *, in_memory: bool) -> tf.data.Dataset:
    options = tf.data.Options()
    # Elements are made in parallel; to split each one's work as well costs more than it gives.
    options.threading.max_intra_op_parallelism = 1
    # More threads than cores are in each other's way, unless some wait for a disk.
    options.threading.private_threadpool_size = _CORES if in_memory else 2 * _CORES
    # All numbers of calls are given. To find them at run time, tf.data measures every operation,
    # which costs some percent.
    options.autotune.enabled = False
    return dataset.with_options(options)


def _numbers(
    split: IndexedSplit,
    seed: int,
    start: int,
    stop: int,
    batch_size: int,
    samples_per_class: int | None,
) -> np.ndarray:
    """The images of batches start ... stop - 1: int64 [stop - start, batch_size]."""
    if samples_per_class is not None:
        return split.balanced_numbers(
            seed=seed,
            start=start,
            stop=stop,
            num_classes=batch_size // samples_per_class,
            samples_per_class=samples_per_class,
        )
    numbers = split.shuffled_numbers(seed=seed, start=start * batch_size, stop=stop * batch_size)
    return numbers.reshape(stop - start, batch_size)
