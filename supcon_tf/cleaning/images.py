"""The images of a run for an audit: embeddings, and signatures of their pixels."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.decode import decode
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError
from supcon_tf.evaluation.prediction import Model
from supcon_tf.evaluation.thumbnails import rgb, thumbnail

_SIGNATURE_PX = 16
_SMALL_PX = 64
# Sides of the middle of an image that may be compared with the whole of another one.
_MIDDLES = (1.0, 0.9, 0.8)


@dataclasses.dataclass(frozen=True)
class AuditImages:
    """All images of a source, split after split.

    Args:
      splits: the splits by name.
      split_of: the name of each image's split, [n].
      number_in_split: [n].
      names: path or name of each image, [n].
      class_names: [C]; () without labels, or if an image may have several.
      labels: int64 [n], class numbers; -1 without classes.
      label_texts: [n], for the tables.
      embeddings: float32 [n, D].
      signatures: float32 [n, V, S]: see `signatures`.
    """

    splits: dict[str, IndexedSplit]
    split_of: list[str]
    number_in_split: list[int]
    names: list[str]
    class_names: tuple[str, ...]
    labels: np.ndarray
    label_texts: list[str]
    embeddings: np.ndarray
    signatures: np.ndarray

    def thumbnail(self, image: int) -> np.ndarray:
        """A small picture of an image, uint8 [px, px, 3]."""
        split = self.splits[self.split_of[image]]
        return thumbnail(split.read(tf.constant(self.number_in_split[image], tf.int64)))


def read_images(source: Source, model: Model, *, batch_size: int) -> AuditImages:
    """Embeds all images of a source.

    Args:
      source: the images.
      model: from `evaluation.prediction.load_model`.
      batch_size: images at a time.

    Raises:
      UserError: a source that is streamed.
    """
    splits = {}
    for name in ("train", "validation", "test"):
        split = getattr(source, name)
        if split is not None and not isinstance(split, IndexedSplit):
            raise UserError(
                f"an audit reads images by number, but {source.name!r} is streamed: set "
                'sources.tfds.cache = "disk"'
            )
        if split is not None:
            splits[name] = split
    embeddings, parts = [], []
    for name, split in splits.items():
        for encoded, small in _batches(split, batch_size, description=f"reading {name}"):
            embeddings.append(model(encoded)["embedding"])
            parts.append(signatures(small))
    one_label = source.has_labels and not source.is_multi_label
    return AuditImages(
        splits=splits,
        split_of=[name for name, split in splits.items() for _ in range(split.num_examples)],
        number_in_split=[i for split in splits.values() for i in range(split.num_examples)],
        names=[each for name, split in splits.items() for each in _names(name, split)],
        class_names=source.class_names if one_label else (),
        labels=np.concatenate(
            [
                split.labels if one_label else np.full(split.num_examples, -1)
                for split in splits.values()
            ]
        ),
        label_texts=[
            _text(label, source.class_names) for split in splits.values() for label in split.labels
        ],
        embeddings=np.concatenate(embeddings),
        signatures=np.concatenate(parts),
    )


def signatures(small: tf.Tensor) -> np.ndarray:
    """Pixels of images and of their middles at 16 px, whose products are correlations.

    Args:
      small: float32 [B, 64, 64, 3].

    Returns:
      float32 [B, 6, 768] of length 1, each channel with mean 0; zeros for an image of one colour.
      Variants: the whole and the middle 0.9 and 0.8 of its sides, then these mirrored.
    """
    variants = []
    for side in _MIDDLES:
        margin = round(_SMALL_PX * (1 - side) / 2)
        middle = small[:, margin : _SMALL_PX - margin, margin : _SMALL_PX - margin]
        variants.append(tf.image.resize(middle, [_SIGNATURE_PX] * 2, antialias=True))
    variants += [variant[:, :, ::-1] for variant in variants]
    pixels = tf.stack(variants, axis=1).numpy()  # [B, 6, 16, 16, 3]
    # For each channel: two images of the same dominant colour are not alike for that.
    pixels -= pixels.mean(axis=(2, 3), keepdims=True)
    rows = pixels.reshape(len(small), len(variants), -1)
    lengths = np.linalg.norm(rows, axis=2, keepdims=True)
    # Pixels are within 0 to 255: a shorter row is rounding.
    return np.where(lengths > 1e-2, rows / np.maximum(lengths, 1e-2), 0).astype(np.float32)


def _batches(
    split: IndexedSplit, batch_size: int, *, description: str
) -> Iterator[tuple[list[bytes], tf.Tensor]]:
    """Encoded images, and the images at 64 px, [B, 64, 64, 3]."""

    def prepare(image: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if image.dtype == tf.string:
            encoded, pixels = image, decode(image)
        else:
            pixels = rgb(
                image if image.dtype == tf.uint8 else tf.image.convert_image_dtype(image, tf.uint8)
            )
            encoded = tf.io.encode_png(pixels)
        size = [_SMALL_PX, _SMALL_PX]
        small = tf.image.resize(tf.cast(pixels, tf.float32), size, antialias=True)
        return encoded, tf.ensure_shape(small, [*size, 3])

    batches = split.in_order().map(prepare, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
    total = -(-split.num_examples // batch_size)
    for encoded, small in tqdm(
        batches, desc=description, total=total, unit="batch", leave=False, disable=None
    ):
        yield encoded.numpy().tolist(), small


def _names(name: str, split: IndexedSplit) -> list[str]:
    if split.paths:
        return list(split.paths)
    if split.names is not None:
        return list(split.names())
    return [f"{name} {number}" for number in range(split.num_examples)]


def _text(label: np.ndarray, class_names: tuple[str, ...]) -> str:
    """The class names of a label, separated by ";"."""
    if not class_names:
        return ""
    numbers = np.flatnonzero(label) if label.ndim else [label]
    return ";".join(class_names[number] for number in numbers)
