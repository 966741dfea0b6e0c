"""Makes training batches from a split: from a stream, in parts of a batch, or image by image."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.mixing import Mixing
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.splits import IndexedSplit, Split, StreamedSplit

_CORES = os.cpu_count() or 1
# Elements that are made at the same time; twice the cores keep all cores busy.
_PARALLEL_CALLS = 2 * _CORES


@dataclasses.dataclass(frozen=True, eq=False)
class BatchMaker:
    """Makes the batches of `pipeline.training_batches`, which documents these fields."""

    split: Split
    preprocessing: Preprocessing
    augmentation: Augmentation
    num_views: int
    batch_size: int
    num_classes: int
    seed: int
    samples_per_class: int | None
    samples_in_a_row: int | None
    repeat_images: bool
    mixing: Mixing | None
    defer_to_device: bool
    shard: tuple[int, int]

    # With AutoGraph, the error for a wrong option would show generated code.
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
                samples_in_a_row=self.samples_in_a_row,
                repeat_images=self.repeat_images,
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
            # The first seed after those of the batch's views.
            number = self.batch_size * self.num_views + self.shard[0]
            rows = tf.one_hot(labels, self.num_classes) if labels.shape.rank == 1 else labels
            seed = fold_in(fold_in(self.seed, step), number)
            # The same seed mixes all views of two images alike, so that they share one target.
            mixed_views, targets = zip(
                *(
                    mixing(view, tf.cast(rows, tf.float32), seed=seed)
                    for view in tf.unstack(views, num=self.num_views, axis=1)
                ),
                strict=True,
            )
            return tf.stack(mixed_views, axis=1), targets[0]

        return mixed


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
