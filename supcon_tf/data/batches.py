"""Batches of views for training, and of evaluation crops, out of a split."""

from collections.abc import Callable

import tensorflow as tf

from supcon_tf.data.splits import Split
from supcon_tf.data.views import Augmentation, Preprocessing, decode


def training_batches(
    split: Split,
    *,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    num_views: int,
    batch_size: int,
    seed: int,
) -> Callable[[int, int], tf.data.Dataset]:
    """The endless sequence of batches, from which (start, stop) takes steps start ... stop - 1.

    A batch, images float32 [B, V, H, W, 3] and labels int64 [B], is a function of (seed, step):
    the samples by the split's shuffled order, the views by a seed folded from (seed, step, place
    in the batch, view). The order runs on over epoch boundaries, so no image is dropped.

    Args:
      split: the images.
      preprocessing: crop and scale of a view.
      augmentation: what distorts it between the two, as `views.simclr`.
      num_views: V, views of each sample.
      batch_size: B, over all replicas.
      seed: of order and views.

    Raises:
      ValueError: a batch larger than the split.
    """
    if batch_size > split.num_examples:
        raise ValueError(
            f"batch_size must be at most the {split.num_examples} training images, got "
            f'{batch_size}: lower it, as by --gin_param="pretrain.run.batch_size = '
            f'{max(1, split.num_examples // 2)}" (or linear.run, finetune.run)'
        )

    @tf.function(autograph=False)  # Traced once, however many stretches of steps are taken.
    def views_of(image: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        image = decode(image)
        step = tf.cast(position // batch_size, tf.int32)
        place = tf.cast(position % batch_size, tf.int32)
        sample_seed = tf.random.fold_in(tf.stack([tf.constant(seed), step]), place)
        seeds = [tf.random.fold_in(sample_seed, view) for view in range(num_views)]
        return tf.stack(
            [preprocessing.training_view(image, augmentation, seed=seed) for seed in seeds]
        )

    def steps(start: int, stop: int) -> tf.data.Dataset:
        examples = split.batched(seed=seed, start=start, stop=stop, batch_size=batch_size)
        positions = tf.data.Dataset.range(start * batch_size, stop * batch_size)
        samples = tf.data.Dataset.zip(positions, examples).map(
            lambda position, example: (views_of(example[0], position), example[1]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return samples.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    return steps


def evaluation_batches(
    examples: tf.data.Dataset, *, preprocessing: Preprocessing, batch_size: int
) -> tf.data.Dataset:
    """Evaluation crops in the order of `examples`: ([B, H, W, 3], [B]), the last batch smaller.

    Args:
      examples: (image, label), as `split.in_order()`.
      preprocessing: crop and scale.
      batch_size: B.
    """
    crops = examples.map(
        lambda image, label: (preprocessing.evaluation_view(decode(image)), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return crops.batch(batch_size).prefetch(tf.data.AUTOTUNE)
