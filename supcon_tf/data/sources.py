"""Where labelled images come from: scikit-learn's digits, a TFDS set, a folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.image_files import images_by_class, without_unreadable
from supcon_tf.data.splits import IndexedSplit, Split, StreamedSplit, hold_out

# A set that is encoded in fewer bytes than this is held in memory and read by number.
IN_MEMORY_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class Source:
    """Labelled images in two or three splits.

    Args:
      name: for people.
      class_names: the name of each class number.
      train: to train on.
      test: held out; looked at only for results.
      validation: taken from the training images, for choosing; None without a share for it.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    validation: Split | None = None

    def __post_init__(self) -> None:
        for name in ("train", "test", "validation"):
            split = getattr(self, name)
            if split is not None:
                _check_labels(f"{self.name!r}, {name}", split, self.num_classes)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


def digits(*, validation_share: float = 0.0, seed: int = 0) -> Source:
    """scikit-learn's 1,797 handwritten digits, upscaled from 8 x 8 grey to 32 x 32 x 3.

    A quarter of every class is held out, always the same one.

    Args:
      validation_share: of the training images to set aside, 0 for none.
      seed: of that choice.

    Example:
      >>> from supcon_tf.data import sources
      >>> source = sources.digits()
      >>> source.train.num_examples, source.test.num_examples, source.num_classes
      (1347, 450, 10)
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = tf.constant(data.images[..., None] / 16.0, tf.float32)
    upscaled = tf.image.resize(grey, (32, 32), method="bicubic")
    images = tf.cast(tf.round(tf.clip_by_value(upscaled, 0.0, 1.0) * 255.0), tf.uint8)
    everything = IndexedSplit(
        data.target.astype(np.int64),
        lambda number: tf.image.grayscale_to_rgb(tf.gather(images, number)),
    )
    train, test = hold_out(everything.labels, 0.25, seed=0)
    names = tuple(str(name) for name in data.target_names)
    return _with_validation(
        Source("digits", names, everything.take(train), everything.take(test)),
        validation_share,
        seed,
    )


def tfds(
    name: str,
    *,
    data_dir: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    validation_split: str | None = None,
    validation_share: float = 0.0,
    download: bool = False,
    seed: int = 0,
) -> Source:
    """A TensorFlow Datasets image-classification set.

    A split whose files are below 2 GiB is held in memory, still encoded, and can be read in any
    order; a larger one is streamed.

    Args:
      name: as in the TFDS catalogue, with "/config" and ":version" where needed.
      data_dir: where TFDS keeps its sets, by default ~/tensorflow_datasets.
      train_split, test_split: TFDS split names or slices, such as "train[:80%]".
      validation_split: the same, to choose by; None for none or a share.
      validation_share: of the training images to set aside, 0 for none; not for a streamed set,
        which takes a validation_split instead.
      download: fetch and prepare the set when it is not there.
      seed: of the choice of the validation images.

    Raises:
      ValueError: an unknown set or split, a set that is not there, one without an image and a
        class label, or labels outside of the classes.
    """
    import tensorflow_datasets

    if validation_split is not None and validation_share:
        raise ValueError(
            f"give validation_split or validation_share, got {validation_split!r} and "
            f"{validation_share}"
        )
    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir)
    except (tensorflow_datasets.core.DatasetNotFoundError, ValueError) as error:
        raise ValueError(
            f"no TFDS set named {name!r}: {str(error).splitlines()[0]}; see "
            "tensorflow_datasets.list_builders() for the names"
        ) from None
    if not builder.info.splits:
        if not download:
            raise ValueError(
                f"the TFDS set {name!r} is not in {builder.data_dir}: set sources.tfds.data_dir "
                "to where it is, or sources.tfds.download = True to fetch it"
            )
        builder.download_and_prepare()
    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    kinds = (tensorflow_datasets.features.Image, tensorflow_datasets.features.ClassLabel)
    if not all(
        key in features and isinstance(features[key], kind)
        for key, kind in zip(keys, kinds, strict=True)
    ):
        raise ValueError(f"the TFDS set {name!r} has no pair of an image and a class label")
    source = Source(
        name,
        tuple(features[keys[1]].names),
        _tfds_split(builder, train_split, keys),
        _tfds_split(builder, test_split, keys),
        None if validation_split is None else _tfds_split(builder, validation_split, keys),
    )
    return _with_validation(source, validation_share, seed)


def _tfds_split(builder: Any, split: str, keys: tuple[str, str]) -> Split:
    """One split of a prepared TFDS builder, in memory where it is small enough."""
    import tensorflow_datasets

    try:
        info = builder.info.splits[split]
    except (KeyError, ValueError):
        raise ValueError(
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
        return examples.map(lambda example: (example[keys[0]], example[keys[1]]))

    # A slice does not tell its bytes.
    whole = builder.info.splits.values()
    bytes_per_image = sum(s.num_bytes for s in whole) / sum(s.num_examples for s in whole)
    if info.num_examples * bytes_per_image > IN_MEMORY_BYTES:
        return StreamedSplit(info.num_examples, one_pass)
    examples = tqdm(
        one_pass(None).as_numpy_iterator(),
        desc=f"reading {builder.info.name} {split}",
        total=info.num_examples,
        unit="image",
        leave=False,
        disable=None,
    )
    encoded, labels = zip(*examples, strict=True)
    images = tf.constant(encoded)
    return IndexedSplit(np.array(labels, np.int64), lambda number: tf.gather(images, number))


def folder(
    root: str | None = None,
    *,
    test_share: float = 0.2,
    validation_share: float = 0.0,
    unreadable_limit: float = 0.05,
    check_images: bool = True,
    seed: int = 0,
) -> Source:
    """A folder of images: root/class/*.jpg, or root/train/class/*.jpg and root/test/class/*.jpg.

    Without a test folder, a share of every class is held out, the same for the same seed. JPEG,
    PNG, BMP and GIF files are read.

    Args:
      root: the folder; without it there is an error that says how to set it.
      test_share: of every class to hold out where there is no root/test (or root/val).
      validation_share: of the training images to set aside, 0 for none.
      unreadable_limit: unreadable images are named and left out; a larger share of them than
        this is an error.
      check_images: decode every image once at the start, so that an unreadable one cannot end
        a run in its middle.
      seed: of the choice of the held-out and the validation images.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no root, no or one class, an empty class folder, other classes in test than in
        train, too few images of a class, or too many unreadable ones.
    """
    if root is None:
        raise ValueError(
            "which folder of images? say --gin_param=\"sources.folder.root = '/data/photos'\""
        )
    base = Path(root).expanduser()
    if not base.is_dir():
        raise FileNotFoundError(
            f"no folder {root!r}: point sources.folder.root at a folder with one folder of "
            "images per class"
        )
    train_files = images_by_class(base / "train" if (base / "train").is_dir() else base)
    test_root = next((base / name for name in ("test", "val") if (base / name).is_dir()), None)
    if test_root is not None and (base / "train").is_dir():
        test_files = images_by_class(test_root)
        if test_files.keys() != train_files.keys():
            odd = sorted(test_files.keys() ^ train_files.keys())
            raise ValueError(
                f"train and {test_root.name} must have the same class folders in {root!r}; only "
                f"one of them has {odd[0]!r}"
            )
    else:
        test_files = {}
    class_names = tuple(sorted(train_files))
    if check_images:
        train_files = without_unreadable(train_files, unreadable_limit)
        test_files = without_unreadable(test_files, unreadable_limit)
    train = _folder_split(train_files, class_names)
    test = _folder_split(test_files, class_names)
    needed = 1 if test_files else 2
    for name in class_names:
        if len(train_files[name]) < needed:
            raise ValueError(
                f"the class folder {name!r} in {root!r} has {len(train_files[name])} readable "
                f"images, {needed} are needed: add some, remove it, or give train/ and test/"
            )
    if not test_files:
        kept, held_out = hold_out(train.labels, test_share, seed=seed)
        train, test = train.take(kept), train.take(held_out)
    return _with_validation(Source(base.name, class_names, train, test), validation_share, seed)


def _folder_split(files: Mapping[str, list[str]], class_names: tuple[str, ...]) -> IndexedSplit:
    paths = tuple(path for name in class_names for path in files.get(name, ()))
    labels = [number for number, name in enumerate(class_names) for _ in files.get(name, ())]
    all_paths = tf.constant(paths, tf.string)
    return IndexedSplit(
        np.array(labels, np.int64),
        lambda number: tf.io.read_file(tf.gather(all_paths, number)),
        paths,
    )


def _with_validation(source: Source, share: float, seed: int) -> Source:
    """Sets a share of every class of the training images aside."""
    if share == 0:
        return source
    if isinstance(source.train, StreamedSplit):
        raise ValueError(
            f"validation_share must be 0 for {source.name!r}, which is streamed, got {share}: "
            "say train_split = 'train[:95%]' and validation_split = 'train[95%:]' instead"
        )
    kept, chosen = hold_out(source.train.labels, share, seed=seed)
    return dataclasses.replace(
        source, train=source.train.take(kept), validation=source.train.take(chosen)
    )


def _check_labels(where: str, split: Split, num_classes: int) -> None:
    """All labels of an indexed split; of a streamed one the first, as some sets have none."""
    if isinstance(split, IndexedSplit):
        labels = split.labels
    else:
        labels = np.array([label for _, label in split.in_order().take(1).as_numpy_iterator()])
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"labels of {where}, must be in 0 ... {num_classes - 1}, got {wrong[0]}: TFDS gives -1 "
            "where a split has no labels, choose another split"
        )
