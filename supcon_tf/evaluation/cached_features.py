"""Features of a frozen encoder, computed once and kept in the run directory."""

import dataclasses
import hashlib
import os
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from supcon_tf.data.pipeline import evaluation_batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.splits import IndexedSplit, Split
from supcon_tf.errors import UserError
from supcon_tf.evaluation import predict
from supcon_tf.files import replacing

# Images of a split that enter the hash of its features.
NUM_HASHED = 32


@dataclasses.dataclass(frozen=True)
class Features:
    """Embeddings of a split's images in their stored order.

    Args:
      embeddings: float32 [n, D].
      labels: int64, [n] or [n, C].
      seconds: time to compute them.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    seconds: float

    def as_split(self) -> IndexedSplit:
        """A split with features [D] in place of images, for `FeaturePassthrough`."""
        rows = tf.constant(self.embeddings)
        return IndexedSplit(
            self.labels,
            lambda number: tf.gather(rows, number),
            reads_batches=True,
            in_memory=True,
        )


@dataclasses.dataclass(frozen=True)
class FeaturePassthrough(Preprocessing):
    """Leaves features unchanged: [..., D] -> one view [..., 1, D]."""

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
    """Features of the evaluation views of a split, read from a file or computed and saved.

    The file name has a hash of what the features depend on: the encoder's file, the split's labels
    and image files, and the evaluation views of some of its images and of a random one, which
    change with pixels, crop, size and normalization. The file is written atomically and replaces
    one with another hash. It takes 4 n D bytes, in memory and on disk.

    Args:
      folder: directory of the files.
      name: name of the split, such as "training".
      split: the images.
      encoder: images -> embeddings, run in inference mode.
      encoder_file: the file it was loaded from.
      preprocessing: crop and normalization.
      batch_size: images per prediction.
      description: title of the progress bar.
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
        seconds = time.perf_counter() - start
        for stale in folder.glob(f"{name}-*.npz"):
            stale.unlink()
        with replacing(file) as partial:
            np.savez(partial, allow_pickle=False, labels=labels, seconds=seconds, **outputs)
    try:
        # NumPy leaves a damaged file open.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return Features(arrays["embedding"], arrays["labels"], float(arrays["seconds"]))
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{str(file)!r} is damaged ({error}): remove it, and the features are computed again"
        ) from None


def _fingerprint(split: Split, *, encoder_file: Path, preprocessing: Preprocessing) -> str:
    with encoder_file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"{split.num_examples} images".encode())
    if isinstance(split, IndexedSplit):
        digest.update(np.asarray(split.labels, np.int64).tobytes())
        for path in split.paths:
            stat = os.stat(path)
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        count = min(NUM_HASHED, split.num_examples)
        numbers = np.linspace(0, split.num_examples - 1, count).astype(np.int64)
        hashed = tf.data.Dataset.from_tensor_slices(numbers).map(split.example)
    else:
        hashed = split.in_order().take(NUM_HASHED)
    for views, labels in evaluation_batches(
        hashed, preprocessing=preprocessing, batch_size=NUM_HASHED
    ):
        digest.update(views.numpy().tobytes())
        digest.update(labels.numpy().tobytes())
    channels = preprocessing.image_shape[-1]
    # Crops may be equal for all images of the split, but differ for an image of odd size.
    random_image = np.random.default_rng(0).integers(0, 256, (61, 47, channels), np.uint8)
    digest.update(preprocessing.evaluation_view(tf.constant(random_image)).numpy().tobytes())
    return digest.hexdigest()[:32]
