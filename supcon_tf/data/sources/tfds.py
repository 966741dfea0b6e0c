"""A TensorFlow Datasets image-classification set as a source."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.decode import decode
from supcon_tf.data.disk_cache import cached_split
from supcon_tf.data.sources.base import Source, with_validation
from supcon_tf.data.splits import IndexedSplit, Split, StreamedSplit
from supcon_tf.errors import UserError

# A set of fewer bytes than this is held in memory and read by number.
IN_MEMORY_BYTES = 2 << 30

_LARGEST_BATCHED_PX = 96

Cache = Literal["auto", "memory", "disk", "none"]


def tfds(
    name: str,
    *,
    data_dir: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    validation_split: str | None = None,
    validation_share: float = 0.0,
    cache: Cache = "auto",
    cache_dir: str | None = None,
    download: bool = False,
    seed: int = 0,
) -> Source:
    """A TensorFlow Datasets image-classification set, with one label per image or several.

    The labels are the feature `label`, or a sequence of classes `labels`, as voc/2007 has.

    A split that is held in memory or cached on disk can be read in any order, and a run goes on
    at any step at once. A streamed one is read over to where the run stood.

    Args:
      name: as in the TFDS catalogue, with "/config" and ":version" where needed.
      data_dir: where TFDS keeps its sets, by default ~/tensorflow_datasets.
      train_split, test_split: TFDS split names or slices, such as "train[:80%]".
      validation_split: the same, to choose by; None for none or a share.
      validation_share: of the training images to set aside, 0 for none; not for a streamed set,
        which takes a validation_split instead.
      cache: "memory": decoded where all images have one size, encoded otherwise; "disk": encoded,
        in one file in cache_dir that is written once; "none": streamed; "auto": "memory" below
        2 GiB, "none" above.
      cache_dir: for "disk", by default where TFDS keeps this set.
      download: fetch and prepare the set when it is not there.
      seed: of the choice of the validation images.

    Raises:
      UserError: an unknown set or split, a set that is not there, one without an image and class
        labels, labels outside of the classes, or an unknown cache.
    """
    if cache not in get_args(Cache):
        raise UserError(f"cache must be one of {get_args(Cache)}, got {cache!r}")
    import tensorflow_datasets

    if validation_split is not None and validation_share:
        raise UserError(
            f"give validation_split or validation_share, got {validation_split!r} and "
            f"{validation_share}"
        )
    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir)
    except (tensorflow_datasets.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(
            f"no TFDS set named {name!r}: {str(error).splitlines()[0]}; see "
            "tensorflow_datasets.list_builders() for the names"
        ) from None
    if not builder.info.splits:
        if not download:
            raise UserError(
                f"the TFDS set {name!r} is not in {builder.data_dir}: set sources.tfds.data_dir "
                "to where it is, or sources.tfds.download = True to fetch it"
            )
        builder.download_and_prepare()
    features = builder.info.features
    default_keys = ("image", "label" if "label" in features else "labels")
    keys = builder.info.supervised_keys or default_keys
    image, classes = map(dict(features.items()).get, keys)
    if isinstance(classes, tensorflow_datasets.features.Sequence):
        classes = classes.feature
    if not (
        isinstance(image, tensorflow_datasets.features.Image)
        and isinstance(classes, tensorflow_datasets.features.ClassLabel)
    ):
        raise UserError(
            f"the TFDS set {name!r} has no image with a class label, or a sequence of them, got "
            f"{keys} of {sorted(features)}"
        )

    directory = str(cache_dir or builder.data_dir)
    if cache == "disk" and "://" in directory:
        raise UserError(
            f"a cache on disk cannot be at {directory!r}: set sources.tfds.cache_dir to a local "
            "folder"
        )

    def read(split: str) -> Split:
        return _tfds_split(builder, split, keys, cache, Path(directory).expanduser())

    source = Source(
        name,
        tuple(classes.names),
        read(train_split),
        read(test_split),
        None if validation_split is None else read(validation_split),
    )
    return with_validation(source, validation_share, seed)


def _tfds_split(
    builder: Any, split: str, keys: tuple[str, str], cache: Cache, cache_dir: Path
) -> Split:
    """One split of a prepared TFDS builder."""
    import tensorflow_datasets

    try:
        info = builder.info.splits[split]
    except (KeyError, ValueError):
        raise UserError(
            f"the TFDS set {builder.info.name!r} has the splits {sorted(builder.info.splits)}, "
            f"got {split!r}"
        ) from None

    def one_pass(seed: int | None) -> tf.data.Dataset:
        examples = builder.as_dataset(
            split=split,
            shuffle_files=seed is not None,
            decoders={keys[0]: tensorflow_datasets.decode.SkipDecoding()},
            read_config=tensorflow_datasets.ReadConfig(shuffle_seed=seed, try_autocache=False),
        )
        if seed is not None:
            # Files come shuffled; this mixes what stands near within them.
            examples = examples.shuffle(16_384, seed=seed, reshuffle_each_iteration=False)
        return examples.map(lambda example: (example[keys[0]], labels_of(example)))

    def labels_of(example: dict[str, tf.Tensor]) -> tf.Tensor:
        label = example[keys[1]]
        if label.shape.rank == 0:
            return label
        # Class numbers [k] -> [C] of 0 and 1
        num_classes = builder.info.features[keys[1]].feature.num_classes
        rows = tf.one_hot(label, num_classes, on_value=True, off_value=False)
        return tf.cast(tf.reduce_any(rows, axis=0), tf.int64)

    # A slice does not tell its bytes.
    whole = builder.info.splits.values()
    bytes_per_image = sum(s.num_bytes for s in whole) / sum(s.num_examples for s in whole)
    shape = builder.info.features[keys[0]].shape
    one_size = None not in shape
    if one_size:
        bytes_per_image = 3 * shape[0] * shape[1]
    if cache == "auto":
        fits = info.num_examples * bytes_per_image <= IN_MEMORY_BYTES
        cache = "memory" if fits else "none"
    if cache == "none":
        return StreamedSplit(info.num_examples, one_pass)
    examples = one_pass(None)
    if cache == "memory" and one_size:
        examples = examples.map(
            lambda image, label: (decode(image), label), num_parallel_calls=tf.data.AUTOTUNE
        )

    # A generator: it begins, and shows its bar, when the first batch is asked for.
    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield from tqdm(
            # In batches, as Python is slow to ask for one image at a time.
            examples.batch(1024).prefetch(tf.data.AUTOTUNE).as_numpy_iterator(),
            desc=f"reading {builder.info.name} {split}",
            total=-(-info.num_examples // 1024),
            unit=" x 1024 images",
            leave=False,
            disable=None,
        )

    if cache == "disk":
        # Sets of one name and version may still differ between folders.
        where = hashlib.sha256(str(builder.data_dir).encode()).hexdigest()[:8]
        name = f"{builder.info.full_name}-{split}-{where}".replace("/", "-")
        return cached_split(cache_dir / f"{name}.cache", batches(), info.num_examples)
    parts, labels = zip(*batches(), strict=True)
    images = tf.constant(np.concatenate(parts))
    return IndexedSplit(
        np.concatenate(labels).astype(np.int64),
        lambda number: tf.gather(images, number),
        # A batch of larger ones would take much memory at once.
        reads_batches=one_size and max(shape[:2]) <= _LARGEST_BATCHED_PX,
        in_memory=True,
    )
