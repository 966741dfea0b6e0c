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

    Multi-crop: Caron et al. 2020, arXiv 2006.09882, section 3.2. Each group is made by
    `training_batches` from the same images in the same order, so an image is decoded once per
    group.

    Args:
      split: the images.
      preprocessing: its `crop` takes an `area_range`; its `image_px` is for evaluation only.
      augmentation: applied to every crop.
      num_views: total number of crops of an image.
      crops: (side in pixels, number of crops, range of areas) of each group, of different sides.
      options: batch_size, num_classes, seed, samples_per_class and shard, of `training_batches`.

    Raises:
      UserError: groups of one size or with values out of range, a total other than num_views, or
        as in `training_batches`.

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
            f"multi_crop.batches.crops must have the model's {num_views} crops per image, got "
            f"{total}"
        )
    if options.get("defer_to_device") or options.get("mixing"):
        raise UserError(
            "multi-crop batches take neither defer_to_device nor mixing: set "
            "pipeline.training_batches.defer_to_device = False and .mixing = None"
        )
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
    """The name of a group of crops in a batch and in the inputs of a model."""
    return f"crops{group[0]}"


def check_crops(crops: Sequence[CropGroup]) -> None:
    """Raises a UserError for no groups, two of one size, or values out of range."""
    if not isinstance(crops, Sequence) or not crops:
        raise UserError(f"multi_crop.batches.crops must be groups of crops, got {crops!r}")
    for group in crops:
        try:
            size_px, count, (smallest, largest) = group
            fits = size_px >= 1 and count >= 1 and 0 < smallest <= largest <= 1
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise UserError(
                "multi_crop.batches.crops must be groups of (side >= 1, count >= 1, (smallest, "
                f"largest share of the area in 0 ... 1)), got {group!r}"
            )
    sizes = [size_px for size_px, _, _ in crops]
    if len(set(sizes)) < len(sizes):
        raise UserError(
            f"multi_crop.batches.crops must be groups of different sizes, got {tuple(crops)}"
        )


def _with_own_seeds(
    function: Callable[..., tf.Tensor], number: int, **options: Any
) -> Callable[..., tf.Tensor]:
    """The function, with the group's number folded into its seeds."""

    def seeded(image: tf.Tensor, *, seed: tf.Tensor, **more: Any) -> tf.Tensor:
        return function(image, seed=fold_in(seed, number), **options, **more)

    return seeded
