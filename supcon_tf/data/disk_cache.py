"""Encoded images in one file, from which any of them can be read by its number."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError


def cached_split(
    folder: Path, batches: Iterable[tuple[np.ndarray, np.ndarray]], num_examples: int
) -> IndexedSplit:
    """A split over images on disk, which are written there if they are not yet.

    The folder holds the images one after the other in `images`, and int64 arrays of where each
    ends and of the labels. It appears whole or not at all: it is written beside and then renamed.

    Args:
      folder: of this split alone.
      batches: encoded images [n] and labels, [n] or [n, C], read only where there is no such
        folder.
      num_examples: how many there are.

    Raises:
      UserError: the folder holds another number of images.
    """
    if not folder.is_dir():
        _write(folder, batches)
    ends = np.load(folder / "ends.npy", allow_pickle=False)
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    if len(ends) != num_examples or len(labels) != num_examples:
        raise UserError(
            f"the cache {str(folder)!r} has {len(ends)} images, the split {num_examples}: remove "
            "the folder, it is written again"
        )
    images = np.memmap(folder / "images", np.uint8, mode="r")
    begins = np.concatenate([[0], ends[:-1]])

    def read(number: np.ndarray) -> bytes:
        return images[begins[number] : ends[number]].tobytes()

    def read_in_graph(number: tf.Tensor) -> tf.Tensor:
        encoded = tf.numpy_function(read, [number], tf.string, stateful=False)
        return tf.ensure_shape(encoded, [])

    return IndexedSplit(labels, read_in_graph)


def _write(folder: Path, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of a name that no other process has, and removed unless this one is killed.
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as beside:
        part = Path(beside) / folder.name
        part.mkdir()
        ends: list[int] = []
        labels: list[int] = []
        end = 0
        with (part / "images").open("wb") as file:
            for images, of_images in batches:
                for image in images:
                    end += file.write(image)
                    ends.append(end)
                labels.extend(of_images)
        np.save(part / "ends.npy", np.array(ends, np.int64), allow_pickle=False)
        np.save(part / "labels.npy", np.array(labels, np.int64), allow_pickle=False)
        try:
            part.rename(folder)
        except OSError:
            # Another process may have been faster.
            if not folder.is_dir():
                raise
