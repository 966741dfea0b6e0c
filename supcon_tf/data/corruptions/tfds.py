"""Published corrupted sets from TensorFlow Datasets, one configuration for each cell."""

import functools

from supcon_tf.data.corruptions.base import (
    Cell,
    CorruptedImages,
    Images,
    check_split,
    read_images,
    refuse_missing,
)
from supcon_tf.data.sources.base import Source
from supcon_tf.data.sources.tfds import tfds as tfds_source
from supcon_tf.errors import UserError

# cifar10_corrupted has names of its own for two.
_ALSO_CALLED = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}


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
    """`imagenet2012_corrupted` or `cifar10_corrupted`, prepared by TFDS; nothing is downloaded.

    Args:
      source: of the same classes.
      cells: what must be there.
      num_images: the first so many of a shuffled pass.
      seed: of that pass.
      name: of the set, without the configuration.
      data_dir: where TFDS keeps its sets, by default ~/tensorflow_datasets.
      split: the set's split; None is the only one it has.

    Raises:
      UserError: cells that are not prepared.
      UserError: no name, several splits, other classes or too few images.
    """
    if name is None:
        raise UserError(
            "which corrupted set? say corruptions.tfds.name = 'cifar10_corrupted' or "
            "'imagenet2012_corrupted'"
        )
    config_of = functools.cache(functools.partial(_prepared_config, name, data_dir=data_dir))
    refuse_missing(
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
    """The set's full name for a cell and its splits; None where it is not prepared."""
    import tensorflow_datasets

    for called in (corruption, _ALSO_CALLED.get(corruption, corruption)):
        full = f"{name}/{called}_{severity}"
        try:
            builder = tensorflow_datasets.builder(full, data_dir=data_dir)
        except (tensorflow_datasets.core.DatasetNotFoundError, ValueError):
            continue
        if builder.info.splits:
            return full, sorted(builder.info.splits)
    return None
