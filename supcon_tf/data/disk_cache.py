"""A cache of encoded images in one file, read by number."""

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
    """A split of cached images, which are written first if the cache does not exist.

    The folder holds the concatenated images in `images`, and int64 arrays of the end of each image
    and of the labels. It is written under another name and then renamed, so it is never partial.

    Args:
      folder: the cache of this split.
      batches: encoded images [n] and labels, [n] or [n, C]; read only to write the cache.
      num_examples: number of images.

    Raises:
      UserError: a cache with another number of images, a damaged cache, or a folder that cannot be
        written.
    """
    if not folder.is_dir():
        try:
            _write(folder, batches)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise UserError(
                f"cannot write the cache {str(folder)!r} ({error.strerror}): set cache_dir to "
                "another folder"
            ) from None
    again = f"remove the folder {str(folder)!r} to write it again"
    try:
        ends = np.load(folder / "ends.npy", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        images = np.memmap(folder / "images", np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"the cache is damaged ({error}): {again}") from None
    if len(ends) != num_examples or len(labels) != num_examples:
        raise UserError(f"the cache has {len(ends)} images, the split {num_examples}: {again}")
    if ends[-1] != len(images):
        raise UserError(f"the cache has {len(images)} bytes, {ends[-1]} are needed: {again}")
    begins = np.concatenate([[0], ends[:-1]])

    def read(number: np.ndarray) -> bytes:
        return images[begins[number] : ends[number]].tobytes()

    def read_in_graph(number: tf.Tensor) -> tf.Tensor:
        encoded = tf.numpy_function(read, [number], tf.string, stateful=False)
        return tf.ensure_shape(encoded, [])

    return IndexedSplit(labels, read_in_graph)


def _write(folder: Path, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A unique name, removed unless this process is killed.
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as beside:
        part = Path(beside) / folder.name
        part.mkdir()
        ends: list[int] = []
        labels: list[int] = []
        end = 0
        with (part / "images").open("wb") as file:
            for images, batch_labels in batches:
                for image in images:
                    end += file.write(image)
                    ends.append(end)
                labels.extend(batch_labels)
        np.save(part / "ends.npy", np.array(ends, np.int64), allow_pickle=False)
        np.save(part / "labels.npy", np.array(labels, np.int64), allow_pickle=False)
        try:
            part.rename(folder)
        except OSError:
            # Another process may have written it meanwhile.
            if not folder.is_dir():
                raise
