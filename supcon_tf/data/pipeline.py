"""Batches of views for training, and of evaluation crops, from a split."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.decode import decode
from supcon_tf.data.mixing import Mixing
from supcon_tf.data.options import check_flag
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.splits import IndexedSplit, Split, StreamedSplit
from supcon_tf.errors import UserError, check_integer

# (start, stop) -> the batches of steps start ... stop - 1.
Batches = Callable[[int, int], tf.data.Dataset]

_CORES = os.cpu_count() or 1
# Elements that are made at the same time; twice the cores keep all cores busy.
_PARALLEL_CALLS = 2 * _CORES


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
        order.
      mixing: `mixing.mixup` or `mixing.cutmix`, for batches of one view; labels are then rows
        float32 [B, num_classes]. Each host mixes its own part of a batch.
      defer_to_device: leave augmentation and scale to the training step. Images are then
        {"crops": [B, V, H, W, C] in [0, 1], "seeds": int64 [B, V]}.
      shard: (h, H) for the h-th of H equal parts of every batch, one for each host.

    Returns:
      A function of (start, stop) that gives the batches of steps start ... stop - 1.

    Raises:
      UserError: a batch that is larger than the split or no multiple of the classes or hosts,
        class-balanced batches of a streamed split or without one label per image, or mixing with
        several views or on the device.
    """
    _check_sizes(split, batch_size, num_views, shard)
    check_flag("pipeline.training_batches.defer_to_device", defer_to_device)
    if samples_per_class is not None:
        _check_balanced(split, batch_size, samples_per_class)
    if mixing is not None:
        _check_mixing(mixing, num_views, num_classes, defer_to_device)
    return _TrainingBatches(
        split=split,
        preprocessing=preprocessing,
        augmentation=augmentation,
        num_views=num_views,
        batch_size=batch_size,
        num_classes=num_classes,
        seed=seed,
        samples_per_class=samples_per_class,
        mixing=mixing,
        defer_to_device=defer_to_device,
        shard=shard,
    ).steps


@dataclasses.dataclass(frozen=True, eq=False)
class _TrainingBatches:
    """The arguments of `training_batches`, and the datasets that are made with them."""

    split: Split
    preprocessing: Preprocessing
    augmentation: Augmentation
    num_views: int
    batch_size: int
    num_classes: int
    seed: int
    samples_per_class: int | None
    mixing: Mixing | None
    defer_to_device: bool
    shard: tuple[int, int]

    # AutoGraph would report an error in an option by the code that it made of this.
    @tf.autograph.experimental.do_not_convert
    def steps(self, start: int, stop: int) -> tf.data.Dataset:
        """The batches of steps start ... stop - 1."""
        if isinstance(self.split, StreamedSplit):
            batches = self._streamed(self.split, start, stop)
        elif self.split.reads_batches:
            batches = self._in_parts(self.split, start, stop)
        else:
            batches = self._one_by_one(self.split, start, stop)
        if self.mixing is not None:
            numbered = tf.data.Dataset.zip(tf.data.Dataset.range(start, stop), batches)
            # Two whole batches at a time limit the memory.
            batches = numbered.map(
                lambda step, batch: self._mixed(step, *batch), num_parallel_calls=2
            )
        in_memory = isinstance(self.split, IndexedSplit) and self.split.in_memory
        return _with_threads(batches.prefetch(2), in_memory=in_memory)

    def _streamed(self, split: StreamedSplit, start: int, stop: int) -> tf.data.Dataset:
        size, share, (index, count) = self.batch_size, self._share, self.shard
        images = split.batched(seed=self.seed, start=start, stop=stop, batch_size=size)
        numbered = images.enumerate(start * size)
        if count > 1:
            numbered = numbered.filter(lambda position, _: (position % size) // share == index)
        samples = numbered.map(
            lambda position, example: (
                self._views(example[0], self._seeds(position // size, position % size)),
                example[1],
            ),
            num_parallel_calls=_PARALLEL_CALLS,
        )
        return samples.batch(share, drop_remainder=True)

    def _in_parts(self, split: IndexedSplit, start: int, stop: int) -> tf.data.Dataset:
        """Views of a part of a batch at a time, for pixels of one size."""
        share, positions = self._share, self._positions
        part = part_of(share, self.num_views * math.prod(self.preprocessing.image_shape))
        numbers = self._numbers(split, start, stop)
        parts = tf.data.Dataset.from_tensor_slices(numbers.reshape(-1, part)).enumerate()
        made = parts.map(
            lambda number, numbers: self._views_and_labels(
                split,
                numbers,
                self._seeds(
                    start + number * part // share, positions[:part] + number * part % share
                ),
            ),
            num_parallel_calls=_PARALLEL_CALLS,
        )
        if part == share:
            return made
        # Not Dataset.rebatch: a strategy of one replica undoes it.
        return made.batch(share // part, drop_remainder=True).map(
            lambda *batch: tf.nest.map_structure(_merge_parts, batch)
        )

    def _one_by_one(self, split: IndexedSplit, start: int, stop: int) -> tf.data.Dataset:
        positions = self._positions
        numbers = self._numbers(split, start, stop)
        batches = tf.data.Dataset.from_tensor_slices(numbers).enumerate(start)
        samples = batches.flat_map(
            lambda step, numbers: tf.data.Dataset.from_tensor_slices(
                (numbers, self._seeds(step, positions))
            )
        )
        made = samples.map(
            functools.partial(self._views_and_labels, split), num_parallel_calls=_PARALLEL_CALLS
        )
        return made.batch(self._share, drop_remainder=True)

    @property
    def _share(self) -> int:
        """Images of a batch on this host."""
        return self.batch_size // self.shard[1]

    @property
    def _positions(self) -> tf.Tensor:
        """Positions of these images in the batch, int64 [share]."""
        first = self.shard[0] * self._share
        return tf.range(first, first + self._share, dtype=tf.int64)

    def _numbers(self, split: IndexedSplit, start: int, stop: int) -> np.ndarray:
        """The numbers of this host's images in the batches of these steps: [steps, share]."""
        size, samples = self.batch_size, self.samples_per_class
        if samples is None:
            numbers = split.shuffled_numbers(seed=self.seed, start=start * size, stop=stop * size)
        else:
            numbers = split.balanced_numbers(
                seed=self.seed,
                start=start,
                stop=stop,
                num_classes=size // samples,
                samples_per_class=samples,
            )
        first = self.shard[0] * self._share
        return numbers.reshape(stop - start, size)[:, first : first + self._share]

    def _seeds(self, step: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """The seeds of the views at these positions [...]: int64 [..., V]."""
        views = tf.range(self.num_views, dtype=tf.int64)
        numbers = positions[..., None] * self.num_views + views
        return fold_in(fold_in(self.seed, step), numbers)

    def _views_and_labels(self, split: IndexedSplit, numbers: tf.Tensor, seeds: tf.Tensor) -> tuple:
        image, label = split.example(numbers)
        return self._views(image, seeds), label

    # These two are traced once for all ranges of steps.
    @functools.cached_property
    def _views(self) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        @tf.function(autograph=False)
        def views(image: tf.Tensor, seeds: tf.Tensor) -> Any:
            crops = self.preprocessing.training_crops(image, seed=seeds)
            if self.defer_to_device:
                return {"crops": crops, "seeds": seeds}
            return self.preprocessing.augment_and_scale(crops, self.augmentation, seed=seeds)

        return views

    @functools.cached_property
    def _mixed(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        mixing = self.mixing
        assert mixing is not None

        @tf.function(autograph=False)
        def mixed(
            step: tf.Tensor, views: tf.Tensor, labels: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            # The seed after that of the batch's last view.
            number = self.batch_size * self.num_views + self.shard[0]
            rows = tf.one_hot(labels, self.num_classes) if labels.shape.rank == 1 else labels
            images, targets = mixing(
                views[:, 0],
                tf.cast(rows, tf.float32),
                seed=fold_in(fold_in(self.seed, step), number),
            )
            return images[:, None], targets

        return mixed


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
    """The number of images to make at once: a divisor of `share`.

    Args:
      share: images of a batch on this host.
      numbers: float32 numbers of one image's views.
    """
    # About 2 MB, which stay in a core's cache between operations. A share without a divisor near
    # that, such as a prime, is made at once.
    limit = max(1, min(share, 2**19 // numbers))
    part = max(divisor for divisor in range(1, limit + 1) if share % divisor == 0)
    return part if 4 * part >= limit else share


def _merge_parts(values: tf.Tensor) -> tf.Tensor:
    # [parts, n, ...] -> [parts * n, ...]
    shape = tf.shape(values)
    return tf.reshape(values, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))


def _with_threads(dataset: tf.data.Dataset, *, in_memory: bool) -> tf.data.Dataset:
    options = tf.data.Options()
    # Elements are made in parallel, so one element needs one thread.
    options.threading.max_intra_op_parallelism = 1
    # More threads than cores only help where some wait for a disk.
    options.threading.private_threadpool_size = _CORES if in_memory else 2 * _CORES
    # All numbers of parallel calls are given. Tuning them would measure every operation, which
    # costs a few percent.
    options.autotune.enabled = False
    return dataset.with_options(options)


def _check_sizes(split: Split, batch_size: int, num_views: int, shard: tuple[int, int]) -> None:
    check_integer("batch_size", batch_size, at_least=1)
    check_integer("num_views", num_views, at_least=1)
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


def _check_balanced(split: Split, batch_size: int, samples_per_class: int) -> None:
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


def _check_mixing(mixing: Any, num_views: int, num_classes: int, defer_to_device: bool) -> None:
    setting = "pipeline.training_batches.mixing"
    if not callable(mixing):
        raise UserError(f"{setting} must be a function such as @mixing.mixup, got {mixing!r}")
    if num_views != 1 or defer_to_device or num_classes < 1:
        raise UserError(
            "mixing is for stages that train on one view with labels, without defer_to_device: "
            f"set {setting} = None"
        )
