"""Image files: found in class folders, checked before a run depends on them, and read."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.decode import decode
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
# Images too, but of formats that TensorFlow does not decode.
_OTHER_SUFFIXES = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl")


def images_by_class(root: Path) -> dict[str, list[str]]:
    """The image files in each class folder, sorted."""
    files = {}
    others: list[str] = []
    folders: list[str] = []
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        seen = [file for file in os.scandir(entry.path) if not file.name.startswith(".")]
        paths = [file.path for file in seen if file.name.lower().endswith(IMAGE_SUFFIXES)]
        others += [file.path for file in seen if file.name.lower().endswith(_OTHER_SUFFIXES)]
        folders += [file.path for file in seen if file.is_dir()]
        files[entry.name] = sorted(paths)
        if not paths:
            raise UserError(
                f"the class folder {entry.path!r} has no image that can be read: add some "
                f"({', '.join(IMAGE_SUFFIXES)}), convert what is there, move up what stands in "
                "folders of its own, or remove it"
            )
    if others:
        tqdm.write(
            f"left out {len(others)} images of formats that are not read, first {min(others)!r}: "
            "convert them to JPEG or PNG"
        )
    if folders:
        tqdm.write(
            f"left out {len(folders)} folders within class folders, first {min(folders)!r}: move "
            "their images up into the class folder, or make them classes"
        )
    if len(files) < 2:
        found = f"only {next(iter(files))!r}" if files else "none"
        raise UserError(
            f"at least two class folders are needed in {str(root)!r}, found {found}: "
            "one folder of images per class"
        )
    return files


def without_unreadable(files: Mapping[str, list[str]], limit: float) -> dict[str, list[str]]:
    """Decodes every image once; names, counts and leaves out those that fail."""
    paths = [path for of_class in files.values() for path in of_class]
    unreadable = unreadable_of(paths, limit, setting="sources.folder.unreadable_limit")
    return {
        name: [path for path in of_class if path not in unreadable]
        for name, of_class in files.items()
    }


def unreadable_of(paths: Sequence[str], limit: float, *, setting: str) -> set[str]:
    """Decodes every image once; names and counts those that fail.

    Raises:
      UserError: a larger share of them than the limit, which is called `setting`.
    """
    if not paths:
        return set()
    with ThreadPoolExecutor() as threads:
        progress = tqdm(
            threads.map(_is_readable, paths),
            desc="checking images",
            total=len(paths),
            unit="image",
            leave=False,
            disable=None,
        )
        outcomes = list(progress)
    unreadable = {path for path, readable in zip(paths, outcomes, strict=True) if not readable}
    if len(unreadable) > limit * len(paths):
        raise UserError(
            f"{len(unreadable)} of {len(paths)} images cannot be read, first "
            f"{min(unreadable)!r}: repair or remove them, or raise {setting}"
        )
    if unreadable:
        tqdm.write(
            f"left out {len(unreadable)} of {len(paths)} images that cannot be read: "
            + ", ".join(sorted(unreadable)[:5])
            + (", ..." if len(unreadable) > 5 else "")
        )
    return unreadable


def split_of_files(paths: Sequence[str], labels: np.ndarray) -> IndexedSplit:
    """The files in this order, read when they are asked for."""
    all_paths = tf.constant(paths, tf.string)
    return IndexedSplit(
        labels, lambda number: tf.io.read_file(tf.gather(all_paths, number)), tuple(paths)
    )


def _is_readable(path: str) -> bool:
    try:
        encoded = tf.io.read_file(path)
        return bool(tf.size(decode(encoded)) > 0) and not _has_palette(encoded.numpy())
    except tf.errors.OpError:
        return False


def _has_palette(encoded: bytes) -> bool:
    """A BMP of 256 colours, whose numbers TensorFlow takes for grey levels."""
    if encoded[:2] != b"BM" or encoded[28:30] != b"\x08\x00":
        return False
    begin = 14 + int.from_bytes(encoded[14:18], "little")
    end = int.from_bytes(encoded[10:14], "little")
    palette = np.frombuffer(encoded[begin : begin + (end - begin) // 4 * 4], np.uint8)
    levels = np.arange(len(palette) // 4, dtype=np.uint8)[:, None]
    return bool((palette.reshape(-1, 4)[:, :3] != levels).any())
