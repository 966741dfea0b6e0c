"""Published corrupted sets of TensorFlow Datasets, with one configuration for each cell."""

import functools

from supcon_tf.data.corruptions.base import (
    Cell,
    CorruptedImages,
    Images,
    check_cells,
    check_labels,
    check_split,
    read_images,
)
from supcon_tf.data.sources.base import Source
from supcon_tf.data.sources.tfds import tfds as tfds_source
from supcon_tf.data.sources.tfds_builder import find_builder
from supcon_tf.errors import UserError, check_text

# Other names of two corruptions in cifar10_corrupted.
_OTHER_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}


def tfds(
    source: Source,
    *,
    cells: list[Cell],
    num_images: int,
    seed: int,
    name: str | None = None,
    data_dir: str | None = None,
    split: str | None = None,
) -> CorruptedImages:
    """`imagenet2012_corrupted` or `cifar10_corrupted`, prepared by TFDS. Nothing is downloaded.

    Args:
      source: source with the same classes.
      cells: corruptions and severities that are needed.
      num_images: number of images of each, the first of a shuffled pass.
      seed: seed of that pass.
      name: name of the set, without the configuration.
      data_dir: where TFDS stores its sets; None for ~/tensorflow_datasets.
      split: split of the set; None for its only split.

    Raises:
      UserError: no name, configurations that are not prepared, several splits, other classes or
        too few images.
    """
    check_labels(source)
    if name is None:
        raise UserError(
            "which corrupted set? Set corruptions.tfds.name = 'cifar10_corrupted' or "
            "'imagenet2012_corrupted'"
        )
    config_of = functools.cache(functools.partial(_prepared_config, name, data_dir=data_dir))
    check_text("corruptions.tfds.name", name, example="cifar10_corrupted")
    check_cells(
        f"the TFDS set {name!r} in {data_dir or '~/tensorflow_datasets'}",
        cells,
        lambda corruption, severity: config_of(corruption, severity) is not None,
        fix="prepare them with tfds build, set corruptions.tfds.data_dir",
    )

    def images(corruption: str, severity: int) -> Images:
        found = config_of(corruption, severity)
        assert found is not None
        config, splits = found
        if split is None and len(splits) > 1:
            raise UserError(
                f"{config!r} has the splits {splits}: set corruptions.tfds.split to one"
            )
        chosen = split or splits[0]
        cell = tfds_source(
            config, data_dir=data_dir, train_split=chosen, test_split=chosen, cache="none"
        )
        check_split(config, cell.test, cell.class_names, source=source, num_images=num_images)
        return read_images(cell.test, num_images=num_images, seed=seed)

    return CorruptedImages(f"tfds {name} {split or ''}".strip(), images)


def _prepared_config(
    name: str, corruption: str, severity: int, *, data_dir: str | None
) -> tuple[str, list[str]] | None:
    """The full name of a prepared configuration, and its splits; None if it is not prepared."""
    for called in (corruption, _OTHER_NAMES.get(corruption, corruption)):
        full = f"{name}/{called}_{severity}"
        try:
            builder = find_builder(full, data_dir, setting="corruptions.tfds")
        except UserError:
            continue
        if builder.info.splits:
            return full, sorted(builder.info.splits)
    return None
