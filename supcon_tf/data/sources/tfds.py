"""A TensorFlow Datasets set as a source."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.decode import decode
from supcon_tf.data.disk_cache import cached_split
from supcon_tf.data.sources.base import Source, with_validation
from supcon_tf.data.sources.tfds_builder import find_builder, other_versions
from supcon_tf.data.splits import IndexedSplit, Split, StreamedSplit
from supcon_tf.errors import UserError, check_flag, check_integer, check_number, check_text
from supcon_tf.files import expanded
from supcon_tf.json_files import read_json, write_json

# The cache "auto" keeps sets of at most this size in memory.
IN_MEMORY_BYTES = 2 << 30

# Batches of larger images would take much memory at once.
_LARGEST_BATCHED_PX = 96
_READ_AT_ONCE = 1024
# Features that name an image, such as those of imagenet2012 and cifar10.
_NAME_KEYS = ("file_name", "filename", "image/filename", "id")

_Batch = TypeVar("_Batch")

Cache = Literal["auto", "memory", "disk", "none"]


def tfds(
    name: str,
    *,
    data_dir: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    validation_split: str | None = None,
    validation_share: float = 0.0,
    labelled: bool = True,
    cache: Cache = "auto",
    cache_dir: str | None = None,
    download: bool = False,
    seed: int = 0,
) -> Source:
    """A TensorFlow Datasets set of images with one class label each, or several.

    The labels are the feature `label`, or a sequence of classes `labels` as in voc/2007. A split
    in memory or cached on disk can be read in any order, so a run resumes at once. A streamed split
    is read again up to the step where the run stopped.

    Args:
      name: name in the TFDS catalogue, with "/config" and ":version" where needed.
      data_dir: where TFDS stores its sets; None for ~/tensorflow_datasets.
      train_split, test_split: TFDS split names or slices, such as "train[:80%]".
      validation_split: likewise, for the validation split; None for none or a share.
      validation_share: share of the training images for the validation split, 0 for none. A
        streamed set needs `validation_split` instead.
      labelled: False to leave the labels out, for SimCLR and SwAV pretraining.
      cache: "memory": decoded if all images have one size, otherwise encoded; "disk": encoded, in
        one file in cache_dir that is written once; "none": streamed; "auto": "memory" up to 2 GiB,
        "none" above.
      cache_dir: folder for "disk"; None for the folder where TFDS keeps this set.
      download: download and prepare the set if it is not on disk.
      seed: seed of the random validation split.

    Raises:
      UserError: an unknown set, split or cache, a set or version that is not on disk, or one
        without images, class labels or valid labels.
    """
    if cache not in get_args(Cache):
        raise UserError(f"sources.tfds.cache must be one of {get_args(Cache)}, got {cache!r}")
    check_flag("sources.tfds.download", download)
    check_flag("sources.tfds.labelled", labelled)
    check_number("sources.tfds.validation_share", validation_share, at_least=0, below=1)
    check_integer("sources.tfds.seed", seed, at_least=0)
    if validation_split is not None and validation_share:
        raise UserError(
            "sources.tfds takes validation_split or validation_share, not both, got "
            f"{validation_split!r} and {validation_share}"
        )
    builder = _prepared_builder(name, data_dir, download)
    image_key, label_key, class_names = _features(name, builder, labelled)
    directory = str(cache_dir or builder.data_dir)
    if cache == "disk" and "://" in directory:
        raise UserError(
            f"a cache on disk cannot be at {directory!r}: set sources.tfds.cache_dir to a local "
            "folder"
        )
    splits = {"train": train_split, "test": test_split}
    if validation_split is not None:
        splits["validation"] = validation_split
    read = {
        part: _Reader(builder, split, part, image_key, label_key).read(cache, expanded(directory))
        for part, split in splits.items()
    }
    return with_validation(
        Source(name, class_names, read["train"], read["test"], read.get("validation")),
        validation_share,
        seed,
    )


def _prepared_builder(name: str, data_dir: str | None, download: bool) -> Any:
    builder = find_builder(name, data_dir, setting="sources.tfds")
    if builder.info.splits:
        return builder
    if download:
        builder.download_and_prepare()
        return builder
    folder = Path(builder.data_dir)
    set_name = name.partition(":")[0]
    if found := other_versions(folder.parent, set_name, setting="sources.tfds"):
        raise UserError(f"the TFDS set {name!r} is not in {str(folder)!r}; {found}")
    raise UserError(
        f"the TFDS set {name!r} is not in {builder.data_dir}: set sources.tfds.data_dir "
        "to where it is, or sources.tfds.download = True to fetch it"
    )


def _features(name: str, builder: Any, labelled: bool) -> tuple[str, str | None, tuple[str, ...]]:
    """The names of the features of images and labels, and of the classes."""
    import tensorflow_datasets

    features = builder.info.features
    default_keys = ("image", "label" if "label" in features else "labels")
    keys = builder.info.supervised_keys or default_keys
    image, classes = map(dict(features.items()).get, keys)
    if isinstance(classes, tensorflow_datasets.features.Sequence):
        classes = classes.feature
    if not isinstance(image, tensorflow_datasets.features.Image):
        raise UserError(f"the TFDS set {name!r} has no images, got {keys} of {sorted(features)}")
    if not labelled:
        return keys[0], None, ()
    if not isinstance(classes, tensorflow_datasets.features.ClassLabel):
        raise UserError(
            f"the TFDS set {name!r} has no class label, or a sequence of them, got {keys} of "
            f"{sorted(features)}: set sources.tfds.labelled = False to pretrain without labels"
        )
    return keys[0], keys[1], tuple(classes.names)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads one split of a prepared TFDS builder.

    Args:
      builder: builder of the set.
      split: name or slice.
      part: "train", "test" or "validation", for messages.
      image_key, label_key: names of the features; no label_key for no labels.
    """

    builder: Any
    split: str
    part: str
    image_key: str
    label_key: str | None

    def read(self, cache: Cache, cache_dir: Path) -> Split:
        """The split, cached in this way."""
        num_examples = self._num_examples()
        shape = self.builder.info.features[self.image_key].shape
        one_size = None not in shape
        if cache == "auto":
            fits = num_examples * self._bytes_per_image(shape) <= IN_MEMORY_BYTES
            cache = "memory" if fits else "none"
        if cache == "none":
            return StreamedSplit(num_examples, self.one_pass)
        names_key = self._names_key()
        if cache == "disk":
            batches = self._batches(self.one_pass(None))
            folder = cache_dir / self._cache_name()
            split = cached_split(folder, batches, num_examples)
            if names_key is None:
                return split
            return dataclasses.replace(
                split, names=functools.partial(self._cached_names, names_key, folder)
            )
        examples = self.one_pass(None)
        if one_size:
            examples = examples.map(
                lambda image, label: (decode(image), label), num_parallel_calls=tf.data.AUTOTUNE
            )
        parts, labels = zip(*self._batches(examples), strict=True)
        images = tf.constant(np.concatenate(parts))
        return IndexedSplit(
            np.concatenate(labels).astype(np.int64),
            lambda number: tf.gather(images, number),
            reads_batches=one_size and max(shape[:2]) <= _LARGEST_BATCHED_PX,
            in_memory=True,
            names=functools.partial(self._names, names_key) if names_key else None,
        )

    def one_pass(self, seed: int | None) -> tf.data.Dataset:
        """(encoded image, label) once, shuffled by the seed, or in the stored order for None."""
        import tensorflow_datasets

        examples = self.builder.as_dataset(
            split=self.split,
            shuffle_files=seed is not None,
            decoders={self.image_key: tensorflow_datasets.decode.SkipDecoding()},
            read_config=tensorflow_datasets.ReadConfig(shuffle_seed=seed, try_autocache=False),
        )
        if seed is not None:
            # TFDS shuffles the files only.
            examples = examples.shuffle(16_384, seed=seed, reshuffle_each_iteration=False)
        return examples.map(lambda example: (example[self.image_key], self._label(example)))

    def _names_key(self) -> str | None:
        """The feature that names images, if there is one."""
        import tensorflow_datasets

        features = dict(self.builder.info.features.items())
        return next(
            (
                key
                for key in _NAME_KEYS
                if isinstance(features.get(key), tensorflow_datasets.features.Text)
            ),
            None,
        )

    def _names(self, key: str) -> tuple[str, ...]:
        """The names of the images in the stored order, without decoding images."""
        import tensorflow_datasets

        examples = self.builder.as_dataset(
            split=self.split,
            decoders=tensorflow_datasets.decode.PartialDecoding({key: True}),
            read_config=tensorflow_datasets.ReadConfig(try_autocache=False),
        )
        names = examples.map(lambda example: example[key])
        batches = names.batch(_READ_AT_ONCE).as_numpy_iterator()
        return tuple(name.decode() for batch in self._progress(batches) for name in batch)

    def _cached_names(self, key: str, folder: Path) -> tuple[str, ...]:
        file = folder / "names.json"
        names = read_json(file).get(key)
        if names is None:
            names = self._names(key)
            # A shared cache may be read-only.
            with contextlib.suppress(OSError):
                write_json(file, {key: names})
        if not isinstance(names, list | tuple) or len(names) != self._num_examples():
            raise UserError(f"{str(file)!r} is damaged: remove it to write it again")
        return tuple(names)

    def _label(self, example: dict[str, tf.Tensor]) -> tf.Tensor:
        if self.label_key is None:
            return tf.constant(-1, tf.int64)
        label = example[self.label_key]
        if label.shape.rank == 0:
            return label
        # Class numbers [k] -> [C] of 0 and 1
        num_classes = self.builder.info.features[self.label_key].feature.num_classes
        rows = tf.one_hot(label, num_classes, on_value=True, off_value=False)
        return tf.cast(tf.reduce_any(rows, axis=0), tf.int64)

    def _num_examples(self) -> int:
        check_text(f"sources.tfds.{self.part}_split", self.split, example="train[:80%]")
        try:
            num_examples = self.builder.info.splits[self.split].num_examples
        except (KeyError, ValueError, AssertionError):
            raise UserError(
                f"the TFDS set {self.builder.info.name!r} has the splits "
                f"{sorted(self.builder.info.splits)}, got {self.split!r}"
            ) from None
        if not num_examples:
            raise UserError(f"sources.tfds.{self.part}_split = {self.split!r} has no images")
        return int(num_examples)

    def _bytes_per_image(self, shape: tuple[int | None, ...]) -> float:
        height, width = shape[:2]
        if height is not None and width is not None:
            return 3 * height * width
        # A slice has no number of bytes.
        splits = self.builder.info.splits.values()
        num_bytes: int = sum(split.num_bytes for split in splits)
        return num_bytes / sum(split.num_examples for split in splits)

    def _cache_name(self) -> str:
        # Sets of one name and version may differ between folders.
        folder = hashlib.sha256(str(self.builder.data_dir).encode()).hexdigest()[:8]
        parts = [self.builder.info.full_name, self.split]
        parts += ["unlabelled"] if self.label_key is None else []
        return "-".join([*parts, folder]).replace("/", "-") + ".cache"

    # A generator, so that reading starts with the first batch.
    def _batches(self, examples: tf.data.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # In batches, as iterating in Python over single images is slow.
        batches = examples.batch(_READ_AT_ONCE).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
        yield from self._progress(batches)

    def _progress(self, batches: Iterable[_Batch]) -> Iterable[_Batch]:
        return tqdm(
            batches,
            desc=f"reading {self.builder.info.name} {self.split}",
            total=-(-self._num_examples() // _READ_AT_ONCE),
            unit=f" x {_READ_AT_ONCE} images",
            leave=False,
            disable=None,
        )
