"""Features of a frozen encoder, computed once and kept in the run's folder."""

import dataclasses
import hashlib
import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from supcon_tf.data.pipeline import evaluation_batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.splits import IndexedSplit, Split
from supcon_tf.evaluation import predict

# How many images of a split are looked at to tell whether a file holds its features.
NUM_PROBES = 32


@dataclasses.dataclass(frozen=True)
class Features:
    """What an encoder says of a split's images in their stored order.

    Args:
      embeddings: float32 [n, D].
      labels: int64, [n] or [n, C].
      seconds: that it took to compute them.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    seconds: float

    def as_split(self) -> IndexedSplit:
        """A split with rows of features [D] where images would be, for `FeaturePassthrough`."""
        rows = tf.constant(self.embeddings)
        return IndexedSplit(
            self.labels,
            lambda number: tf.gather(rows, number),
            reads_batches=True,
            in_memory=True,
        )


@dataclasses.dataclass(frozen=True)
class FeaturePassthrough(Preprocessing):
    """Preprocessing of rows that are features already: [..., D] -> one view [..., 1, D]."""

    image_px: int = 1

    def training_crops(self, image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
        del seed
        return image[..., None, :]

    def augment_and_scale(
        self, crops: tf.Tensor, augmentation: Augmentation, *, seed: tf.Tensor
    ) -> tf.Tensor:
        del augmentation, seed
        return crops


def cached_features(
    folder: Path,
    name: str,
    split: Split,
    encoder: keras.Model,
    *,
    encoder_file: Path,
    preprocessing: Preprocessing,
    batch_size: int,
    description: str,
) -> Features:
    """The features of a split's evaluation views, from a file in the folder where it has them.

    A file is named by a hash of all that its features depend on: the encoder's file, the split's
    labels and files, and the evaluation views of some of its images and of a made one, which tell
    other pixels, crops, sizes and scales. It appears whole or not at all, and takes the place of
    one with another hash. It takes 4 n D bytes, in memory as on disk.

    Args:
      folder: of the files.
      name: of the split, such as "training".
      split: the images.
      encoder: images -> embeddings, in inference mode.
      encoder_file: that it was loaded from.
      preprocessing: crop and scale.
      batch_size: images at a time.
      description: what the progress bar says.
    """
    key = _fingerprint(split, encoder_file=encoder_file, preprocessing=preprocessing)
    file = folder / f"{name}-{key}.npz"
    if not file.is_file():
        start = time.perf_counter()
        outputs, labels = predict(
            keras.Model(encoder.inputs, {"embedding": encoder.outputs[0]}),
            evaluation_batches(
                split.in_order(), preprocessing=preprocessing, batch_size=batch_size
            ),
            num_batches=-(-split.num_examples // batch_size),
            description=description,
        )
        folder.mkdir(exist_ok=True)
        partial = folder / f"{name}.partial.npz"
        seconds = time.perf_counter() - start
        np.savez(partial, allow_pickle=False, labels=labels, seconds=seconds, **outputs)
        for stale in folder.glob(f"{name}-*.npz"):
            stale.unlink()
        os.replace(partial, file)
    with np.load(file, allow_pickle=False) as arrays:
        return Features(arrays["embedding"], arrays["labels"], float(arrays["seconds"]))


def _fingerprint(split: Split, *, encoder_file: Path, preprocessing: Preprocessing) -> str:
    with encoder_file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"{split.num_examples} images".encode())
    if isinstance(split, IndexedSplit):
        digest.update(np.asarray(split.labels, np.int64).tobytes())
        for path in split.paths:
            stat = os.stat(path)
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        count = min(NUM_PROBES, split.num_examples)
        numbers = np.linspace(0, split.num_examples - 1, count).astype(np.int64)
        probes = tf.data.Dataset.from_tensor_slices(numbers).map(split.example)
    else:
        probes = split.in_order().take(NUM_PROBES)
    for views, labels in evaluation_batches(
        probes, preprocessing=preprocessing, batch_size=NUM_PROBES
    ):
        digest.update(views.numpy().tobytes())
        digest.update(labels.numpy().tobytes())
    # A picture of an odd size, as crops may agree on all that are there.
    made = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
    digest.update(preprocessing.evaluation_view(tf.constant(made)).numpy().tobytes())
    return digest.hexdigest()[:32]
