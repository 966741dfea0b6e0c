"""Multi-crop batches: groups of crops, each with its own size and range of areas."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from supcon_tf.data.augment.rng import fold_in
from supcon_tf.data.pipeline import Batches, training_batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing, instantiate
from supcon_tf.data.splits import Split
from supcon_tf.errors import UserError

# Side in pixels, how many of each image, smallest and largest share of the image's area.
CropGroup = tuple[int, int, tuple[float, float]]


def batches(
    split: Split,
    *,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    num_views: int,
    crops: Sequence[CropGroup] = ((224, 2, (0.14, 1.0)), (96, 6, (0.05, 0.14))),
    **options: Any,
) -> Batches:
    """Batches of {"crops224": [B, 2, 224, 224, 3], "crops96": [B, 6, 96, 96, 3]} and labels.

    Multi-crop is of Caron et al. 2020, arXiv 2006.09882, section 3.2. Each group is a
    `training_batches` of the same images in the same order: an image is decoded once for each.

    Args:
      split: the images.
      preprocessing: its `crop` takes an `area_range`; its size is that of evaluation.
      augmentation: of every crop.
      num_views: crops of an image in all.
      crops: (side in pixels, number of crops, range of areas) of each group, of different sides.
      options: batch_size, num_classes, seed, samples_per_class and shard, of `training_batches`.

    Raises:
      UserError: two groups of one size, another number of crops than num_views, or as in
        `training_batches`.

    Example:
      >>> from supcon_tf.data import multi_crop, sources, views
      >>> source = sources.digits()
      >>> steps = multi_crop.batches(
      ...     source.train, crops=((32, 2, (0.3, 1.0)), (16, 3, (0.1, 0.3))), num_views=5,
      ...     preprocessing=views.Preprocessing(32), augmentation=views.identity, batch_size=4,
      ...     num_classes=10, seed=0)
      >>> images, labels = next(iter(steps(0, 1)))
      >>> {name: tuple(crops.shape) for name, crops in images.items()}
      {'crops32': (4, 2, 32, 32, 3), 'crops16': (4, 3, 16, 16, 3)}
    """
    check_crops(crops)
    total = sum(count for _, count, _ in crops)
    if total != num_views:
        raise UserError(
            f"multi_crop.batches.crops must be those of the model, got {total} crops of each image "
            f"and a model of {num_views}"
        )
    if options.get("defer_to_device") or options.get("mixing"):
        raise UserError("multi-crop batches take neither defer_to_device nor mixing")
    augmentation = instantiate(augmentation)
    groups = {
        group_name(group): training_batches(
            split,
            preprocessing=dataclasses.replace(
                preprocessing,
                image_px=group[0],
                crop=_with_own_seeds(preprocessing.crop, number, area_range=group[2]),
            ),
            augmentation=_with_own_seeds(augmentation, number),
            num_views=group[1],
            **options,
        )
        for number, group in enumerate(crops)
    }

    def steps(start: int, stop: int) -> tf.data.Dataset:
        parts = tf.data.Dataset.zip({name: made(start, stop) for name, made in groups.items()})
        return parts.map(
            lambda parts: (
                {name: images for name, (images, _) in parts.items()},
                next(iter(parts.values()))[1],
            )
        )

    return steps


def group_name(group: CropGroup) -> str:
    """The name of a group of crops in a batch and among the inputs of a model."""
    return f"crops{group[0]}"


def check_crops(crops: Sequence[CropGroup]) -> None:
    """Refuses no groups, two of one size, and numbers that cannot be."""
    sizes = [size_px for size_px, _, _ in crops]
    if not sizes or len(set(sizes)) < len(sizes):
        raise UserError(f"crops must be groups of different sizes, got {tuple(crops)}")
    for size_px, count, (smallest, largest) in crops:
        if size_px < 1 or count < 1 or not 0 < smallest <= largest <= 1:
            raise UserError(
                "crops must be (side >= 1, count >= 1, (smallest, largest share of the area in "
                f"0 ... 1)), got {(size_px, count, (smallest, largest))}"
            )


def _with_own_seeds(
    function: Callable[..., tf.Tensor], number: int, **options: Any
) -> Callable[..., tf.Tensor]:
    """The function with other seeds than those of the other groups' crops at the same places."""

    def seeded(image: tf.Tensor, *, seed: tf.Tensor, **more: Any) -> tf.Tensor:
        return function(image, seed=fold_in(seed, number), **options, **more)

    return seeded
