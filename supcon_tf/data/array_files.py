"""Arrays in .npy and .npz files, and splits of images in arrays."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError

_CHECKED_AT_ONCE = 1024
# Damaged, of an unknown compression, or encrypted.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def load_array(file: Path) -> np.ndarray:
    """The array of a .npy file, memory-mapped.

    Raises:
      UserError: no such file, or not such an array.
    """
    if not file.is_file():
        raise UserError(f"no file {str(file)!r}")
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{str(file)!r} is not an array saved by numpy.save with allow_pickle=False: {reason}"
        ) from None


def load_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file, in memory.

    Raises:
      UserError: no such file, or not such arrays.
    """
    if not file.is_file():
        raise UserError(f"no file {str(file)!r}")
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, TypeError, *_ZIP_ERRORS) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{str(file)!r} does not hold arrays saved by numpy.savez with allow_pickle=False: "
            f"{reason}"
        ) from None


def check_pixels(where: str, images: np.ndarray) -> None:
    """Raises a UserError unless floating-point pixels are in [0, 1]."""
    if images.dtype.kind != "f":
        return
    for start in range(0, len(images), _CHECKED_AT_ONCE):
        part = np.asarray(images[start : start + _CHECKED_AT_ONCE], np.float32)
        if not (part.min(initial=0) >= 0 and part.max(initial=0) <= 1):
            raise UserError(
                f"floating-point images of {where} must be in [0, 1], got {part.min()} to "
                f"{part.max()}: scale each channel to this range"
            )


def check_images_array(where: str, images: np.ndarray) -> None:
    """Raises a UserError for an array of another dtype or shape than images have."""
    if images.dtype not in (np.uint8, np.uint16) and images.dtype.kind != "f":
        raise UserError(
            f"images of {where} must be uint8, uint16 or floating-point, got {images.dtype}: save "
            "them as uint8"
        )
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise UserError(
            f"images of {where} must be [n, height, width, channels], got {list(images.shape)}"
        )


def split_of_array(
    where: str, images: np.ndarray, labels: np.ndarray, *, grey_as_rgb: bool = False
) -> IndexedSplit:
    """A split of images in an array.

    Args:
      where: name of the array in messages.
      images: uint8, uint16 or floating-point in [0, 1]; [n, H, W, C], or [n, H, W] of grey levels.
        A memory-mapped array is read when images are needed.
      labels: int64 [n] or [n, C].
      grey_as_rgb: repeat a single channel three times.

    Returns:
      A split whose images are uint8 [H, W, C] of a uint8 array, and float32 in [0, 1] otherwise.
    """
    check_images_array(where, images)
    if len(images) != len(labels):
        raise UserError(f"{where} has {len(images)} images and {len(labels)} labels")
    shape = images.shape[1:] if images.ndim == 4 else (*images.shape[1:], 1)
    repeats = 3 if grey_as_rgb and shape[2] == 1 else 1
    dtype = np.uint8 if images.dtype == np.uint8 else np.float32

    def read(numbers: np.ndarray) -> np.ndarray:
        pixels = np.asarray(images[numbers], dtype).reshape(*numbers.shape, *shape)
        if images.dtype == np.uint16:
            pixels = np.divide(pixels, np.float32(0xFFFF))
        return np.repeat(pixels, repeats, axis=-1)

    def read_in_graph(numbers: tf.Tensor) -> tf.Tensor:
        pixels = tf.numpy_function(read, [numbers], dtype, stateful=False)
        return tf.ensure_shape(pixels, [*numbers.shape, *shape[:2], shape[2] * repeats])

    in_memory = not isinstance(images, np.memmap)
    return IndexedSplit(labels, read_in_graph, reads_batches=True, in_memory=in_memory)
